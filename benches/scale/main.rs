//! How an agent takes a large cluster: generated objects, in this process or on a real API server.

mod compute;
mod effect;
mod follow;
mod generate;
mod objects;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use objects::Size;

/// As in the program itself: memory and time are those of this allocator.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Large clusters, and what they cost an agent
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Part,
    #[arg(long, default_value_t = 30, global = true)]
    namespaces: u32,
    #[arg(long, default_value_t = 1000, global = true)]
    services: u32,
    #[arg(long, default_value_t = 30_000, global = true)]
    pods: u32,
}

#[derive(Subcommand)]
enum Part {
    /// Translate and index in this process
    Compute,
    /// Create the objects on an API server that runs without a controller manager
    Generate {
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
    },
    /// Follow that API server as an agent does, and measure
    Follow {
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
    },
    /// Change policies, routes and endpoints, and measure when the requests of a pod notice
    Effect {
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
    },
}

#[tokio::main]
async fn run(options: &Options) -> Result<()> {
    let size = Size {
        namespaces: options.namespaces.max(1),
        services: options.services.max(1),
        pods: options.pods,
    };
    match &options.part {
        Part::Compute => compute::run(size),
        Part::Generate { kubeconfig } => generate::run(size, kubeconfig).await,
        Part::Follow { kubeconfig } => follow::run(size, kubeconfig).await,
        Part::Effect { kubeconfig } => effect::run(kubeconfig).await,
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
