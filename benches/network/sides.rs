//! Who carries a case's load: the proxies of each side, where they run, and what the client dials. All stand ready at the same
//! time, each in pods of its own, so that sides are measured seconds apart.

mod envoy;
mod haproxy;
mod identity;
mod nginx;
mod path;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::http::HTTP;
use super::record::case::{Case, Layer, Load, Place, Side};
use super::server::{ECHO, SOURCE, TLS};
use super::support::lab::Lab;
use super::support::lab::process::{Process, command};

/// Where and how proxies start.
pub struct Start<'a> {
    pub lab: &'a Lab,
    /// Envoy's program.
    pub envoy: &'a Path,
    /// Of each proxy.
    pub threads: usize,
}

/// The proxies that run; those that were not asked for do not.
#[derive(Default)]
pub struct Sides {
    proxies: Vec<(Side, Process)>,
}

/// What a client dials, and from where.
pub struct Aim {
    pub pod: &'static str,
    pub to: SocketAddr,
}

impl Sides {
    pub fn start(start: &Start<'_>, sides: &[Side]) -> Result<Self> {
        let mut proxies = Vec::new();
        for side in sides {
            let started = match side {
                Side::Envoy => vec![envoy::plain(start)?],
                Side::Haproxy => vec![haproxy::start(start)?],
                Side::Nginx => vec![nginx::start(start)?],
                Side::Path => path::start(start)?,
                _ => Vec::new(),
            };
            proxies.extend(started.into_iter().map(|process| (*side, process)));
        }
        Ok(Self { proxies })
    }

    /// The processes of a side's proxies, without their children.
    pub fn processes(&self, side: Side) -> Vec<u32> {
        let of_side = self.proxies.iter().filter(|(of, _)| *of == side);
        of_side.map(|(_, process)| process.id()).collect()
    }

    /// Fails if a proxy of the side has ended.
    pub fn must_run(&mut self, side: Side) -> Result<()> {
        let mut of_side = self.proxies.iter_mut().filter(|(of, _)| *of == side);
        of_side.try_for_each(|(_, process)| process.must_run())
    }
}

/// Where a case's load goes on a side.
pub fn aim(lab: &Lab, side: Side, case: &Case) -> Result<Aim> {
    let http2 = matches!(case.load, Load::Http2 { .. });
    let port = match case.load {
        Load::Throughput { .. } => SOURCE,
        Load::Connections { .. } | Load::Paced { http: false, .. } => ECHO,
        _ => HTTP,
    };
    let port = if side == Side::Rustls { port + TLS } else { port };
    let (pod, to) = match (side, case.layer) {
        (Side::Direct | Side::Rustls, _) => ("plain-client", pod(lab, "plain", case.place, port)?),
        (Side::Envoy, _) => ("plain-client", gateway(lab, envoy::LISTEN)?),
        (Side::Haproxy, _) => ("plain-client", gateway(lab, haproxy::LISTEN[usize::from(http2)])?),
        (Side::Nginx, _) => ("plain-client", gateway(lab, nginx::LISTEN[usize::from(http2)])?),
        (Side::Path, Layer::Four) => ("path-client", pod(lab, "path", case.place, port)?),
        (Side::Path, Layer::Seven) => ("path-client", service(lab, "path", "path")?),
        (_, Layer::Four) => ("client", pod(lab, "", case.place, port)?),
        (Side::IsthmusBare, _) => ("client", service(lab, "bench", "bare")?),
        (Side::Isthmus, _) => ("client", service(lab, "bench", "server")?),
    };
    Ok(Aim { pod, to })
}

fn pod(lab: &Lab, set: &str, place: Place, port: u16) -> Result<SocketAddr> {
    let name = match place {
        Place::Across => "server",
        Place::OneNode => "neighbour",
    };
    let name = if set.is_empty() { name.to_owned() } else { format!("{set}-{name}") };
    Ok(SocketAddr::new(lab.address(&name)?, port))
}

fn gateway(lab: &Lab, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(lab.address("gateway")?, port))
}

pub fn service(lab: &Lab, namespace: &str, name: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(lab.service(namespace, name)?[0], HTTP))
}

/// Starts a plain proxy of the distribution in the gateway's pod. `listen`: for HTTP/1.1 and for HTTP/2. The path of its
/// configuration follows the arguments.
fn of_distribution(
    start: &Start<'_>,
    program: &str,
    arguments: &[&str],
    (file, template): (&str, &str),
    listen: [u16; 2],
) -> Result<Process> {
    let lab = start.lab;
    let values = [
        ("THREADS", &*start.threads.to_string()),
        ("LISTEN", &listen[0].to_string()),
        ("LISTENTWO", &listen[1].to_string()),
        ("SERVER", &lab.address("plain-server")?.to_string()),
        ("PORT", &HTTP.to_string()),
        ("DIRECTORY", lab.logs().to_str().context("a directory's name")?),
    ];
    let file = configure(lab, file, template, &values)?;
    let namespace = &lab.pod("gateway")?.attachment.namespace;
    let mut proxy = command(namespace, program);
    proxy.args(arguments).arg(file);
    let mut process = Process::start(program, namespace, proxy, lab.logs())?;
    process.wait_for_port(listen[0])?;
    Ok(process)
}

/// Writes a configuration: the template with a value in the place of each `@NAME@`. Returns its path.
fn configure(lab: &Lab, name: &str, template: &str, values: &[(&str, &str)]) -> Result<PathBuf> {
    let mut text = template.to_owned();
    for (key, value) in values {
        text = text.replace(&format!("@{key}@"), value);
    }
    let mut left = text.split('@').skip(1).step_by(2);
    let is_name = |it: &str| !it.is_empty() && it.chars().all(|c| c.is_ascii_uppercase());
    ensure!(!left.any(is_name), "{name}: a name of the template has no value");
    let file = lab.logs().join(name);
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
