//! Servers of a test in the network of a pod: to the cluster, the pod serves. And servers outside of the cluster's nodes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;

use crate::cluster::{directory, namespace_of, pod};

/// The Service of `outsider`, which is in no mesh: what listens there is reached by everybody.
pub const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: { name: outsider, namespace: default }
spec:
  selector: { app: outsider }
  ports:
  - { name: keys, port: 80, targetPort: 9999 }
  - { name: otlp, port: 4318, targetPort: 4318 }
";
/// Where keys are served.
pub const KEYS: u16 = 9999;
/// Where spans are received.
pub const SPANS: u16 = 4318;

/// Listens in the network of `outsider`.
pub fn listen(port: u16) -> Result<TcpListener> {
    let pod = pod("default", "app=outsider")?;
    let node = pod["spec"]["nodeName"].as_str().context("a node")?;
    let address = pod["status"]["podIP"].as_str().context("an address")?;
    let name = namespace_of(node, address)?.context("the pod's network namespace")?;
    let holder = std::fs::read_to_string(directory().join(format!("log/{node}-holder.pid")))?;
    bind(File::open(format!("/proc/{}/root/run/netns/{name}", holder.trim()))?, port)
}

/// Listens on the machine that the nodes are attached to, which is no node and has no pods: 10.99.0.1.
pub fn listen_outside(port: u16) -> Result<TcpListener> {
    let holder = std::fs::read_to_string(directory().join("log/holder.pid"))?;
    bind(File::open(format!("/proc/{}/ns/net", holder.trim()))?, port)
}

fn bind(network: File, port: u16) -> Result<TcpListener> {
    let listen = move || -> Result<TcpListener> {
        setns(network, CloneFlags::CLONE_NEWNET)?;
        Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?)
    };
    // A thread that ends: its namespace would be another one's from then on.
    std::thread::spawn(listen).join().map_err(|_| anyhow!("the thread that listens panicked"))?
}

/// Answers every request with the body as it is at that time.
pub fn answer(listener: TcpListener, body: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = body.lock().clone();
            // A client that goes away is none of the test's business.
            let _ = answer_one(stream, &body);
        }
    });
}

fn answer_one(mut stream: TcpStream, body: &str) -> std::io::Result<()> {
    stream.read(&mut [0; 4096]).map(drop)?;
    let length = body.len();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The ports at which connections were accepted.
pub type Seen = Arc<Mutex<Vec<u16>>>;

/// Answers every request, and notes at which port it came.
pub fn tell(listener: TcpListener, seen: &Seen) {
    let seen = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let port = stream.local_addr().map_or(0, |address| address.port());
            seen.lock().push(port);
            let _ = answer_one(stream, &format!("port {port}"));
        }
    });
}
