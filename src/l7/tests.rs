//! The workers in process: real sockets on loopback, endpoints outside of the mesh, so that no tunnel is needed.

mod authorizers;
mod destination;
mod destination_rules;
mod external_auth;
mod filters;
mod grpc;
mod informed;
mod isolation;
mod leaving;
mod mirrors;
mod passed_on;
mod raw;
mod refusals;
mod reliability;
mod routing;
mod scripted;
mod streams;
mod support;
mod traffic;
mod tunnelled;
mod unprocessed;
mod virtual_services;
