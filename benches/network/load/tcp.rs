//! Bytes in bulk, and connections that carry one message each: threads that block.

use std::io::Read;

use anyhow::{Result, ensure};

use super::{Client, Progress, Target};
use crate::server::echo;
use crate::wire::Wire;

/// What is read at a time, in bytes.
const CHUNK: usize = 256 * 1024;

/// What has arrived counts.
pub fn streams(target: &Target, connections: usize) -> Vec<Client> {
    each(target, connections, |progress, target| {
        let mut stream = Wire::connect(target.server, target.tls.as_ref())?;
        let mut buffer = vec![0; CHUNK];
        ensure!(stream.read(&mut buffer)? > 0, "no byte came");
        progress.ready();
        loop {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "the stream ended");
            progress.count(read as u64);
        }
    })
}

pub fn connections(target: &Target, at_once: usize) -> Vec<Client> {
    each(target, at_once, |progress, target| {
        let one = || echo(&mut Wire::connect(target.server, target.tls.as_ref())?);
        one()?;
        progress.ready();
        loop {
            one()?;
            progress.count(1);
        }
    })
}

fn each(
    target: &Target,
    count: usize,
    work: impl Fn(&Progress, &Target) -> Result<()> + Clone + Send + 'static,
) -> Vec<Client> {
    let client = |_| {
        let (target, work) = (target.clone(), work.clone());
        Box::new(move |progress: &Progress| work(progress, &target)) as Client
    };
    (0..count).map(client).collect()
}
