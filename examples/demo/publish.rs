//! `--keep`: Bookinfo meshed again, with its page on localhost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::enrolment;
use crate::plaintext::PAGE;
use crate::stage::Stage;
use crate::support::lab::PORT;
use crate::support::lab::netns::Namespace;
use crate::support::lab::private;

/// A listener on the host, and what becomes of its connections.
pub struct Publisher {
    listener: TcpListener,
}

impl Publisher {
    /// Must be called before the private namespaces are entered.
    pub fn bind(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("listen on 127.0.0.1:{port}: choose another with --port"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    /// Meshes Bookinfo, then serves until Ctrl-C.
    pub fn run(self, stage: &mut Stage) -> Result<()> {
        stage.report.title("\nLeft running, meshed again");
        stage.lab.start_agents("")?;
        enrolment::enrol(stage)?;
        stage.apply("waypoint.yaml")?;
        stage.label_namespace("bookinfo", &["istio.io/use-waypoint=waypoint"])?;
        stage.apply("reviews-route.yaml")?;
        stage.apply("productpage-waypoint.yaml")?;
        stage.settle("stranger", &[PAGE], 403)?;
        let address = self.listener.local_addr()?;
        // The browser's requests enter the mesh as those of the pod curl, which may GET.
        let namespace = stage.lab.pod("curl")?.attachment.namespace.clone();
        let target = stage.lab.service("bookinfo", "productpage")?[0];
        explain(stage, address);
        let listener = self.listener;
        std::thread::spawn(move || {
            if let Err(error) = forward(listener, &namespace, target) {
                eprintln!("the page is not published any more: {error:#}");
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio::signal::ctrl_c())?;
        println!("ended; nothing is left");
        Ok(())
    }
}

fn explain(stage: &Stage, address: SocketAddr) {
    let process = std::process::id();
    let manifests = stage.lab.manifests.directory().display();
    let isthmus = stage.lab.programs().isthmus.display();
    let enter = if private::in_user_namespace() {
        format!("nsenter --target {process} --user --preserve-credentials --mount --net")
    } else {
        format!("sudo nsenter --target {process} --mount --net")
    };
    println!(
        "\nThe page:        http://{address}/productpage  (one in ten with black stars)\n\
         Inside the lab:  {enter} bash\n\
         There:           ip netns exec curl curl -i http://productpage.bookinfo:9080/productpage\n\
         \x20                ip netns exec stranger curl -i http://productpage.bookinfo:9080/productpage\n\
         \x20                ip netns exec productpage-v1 nft list ruleset\n\
         \x20                ip netns exec node-a curl -s http://127.0.0.1:15020/metrics\n\
         \x20                ip netns exec node-a {isthmus} status\n\
         The manifests:   {manifests} (edit or remove files; the agents watch them)\n\
         The logs:        {}\n\
         Ctrl-C ends it, and nothing is left.",
        stage.lab.logs().display(),
    );
}

/// Passes connections of the host on to `target`, from inside `namespace`.
fn forward(listener: TcpListener, namespace: &Namespace, target: IpAddr) -> Result<()> {
    namespace.enter()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut connections = JoinSet::new();
        loop {
            let (mut browser, _) = listener.accept().await?;
            connections.spawn(async move {
                // A page that does not load shows itself in the browser.
                let Ok(mut page) = TcpStream::connect((target, PORT)).await else { return };
                let _ = copy_bidirectional(&mut browser, &mut page).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}
