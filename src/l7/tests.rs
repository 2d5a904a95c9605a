//! The workers in process: real sockets on loopback, endpoints outside of the mesh, so that no tunnel is needed.

mod destination;
mod filters;
mod grpc;
mod isolation;
mod routing;
mod support;
mod tunnelled;
