//! The node's container network: the agent hears of a pod before the pod's first packet.
//!
//! `isthmus` is a chained CNI plugin (CNI specification 1.1): the container runtime runs it for each sandbox after the
//! plugins that create the network ([`plugin`]). The plugin asks the agent over a Unix socket ([`Question`],
//! [`Answer`]) and waits until the pod is captured, or fails the sandbox. [`serve`] is the agent's end of the socket.
//! [`Installer`] puts the program and its entry where the runtime looks for them, and removes both again.
//!
//! Invariants: the results of earlier plugins are passed on unchanged; DEL never fails; nothing of a runtime's
//! configuration is changed but our own entry, and removal restores the original file. An implementation of [`Pods`]
//! (`node`) decides whether a pod belongs to the mesh; this room does not.

mod client;
mod conflist;
mod follow;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod install;
mod message;
mod network;
mod outcome;
mod plugin;
mod server;

pub use conflist::{Entry, Malformed, PLUGIN, plugins_of};
pub use follow::follow;
pub use install::{InstallError, Installer, first_configuration};
pub use message::{Answer, Command, MAX_LENGTH, Pod, Question};
pub use plugin::{is_plugin_call, plugin};
pub use server::{Pods, serve};

/// The default path of the agent's socket.
pub const SOCKET: &str = "/run/isthmus/cni.sock";
