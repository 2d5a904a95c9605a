//! The workers in process: real sockets on loopback, endpoints outside of the mesh, so that no tunnel is needed.

mod destination;
mod filters;
mod grpc;
mod isolation;
mod mirrors;
mod refusals;
mod reliability;
mod routing;
mod scripted;
mod support;
mod tunnelled;
