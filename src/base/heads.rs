//! What the heads of HTTP messages may take: constants that the rooms which read heads keep, and that the bound on the
//! agent's memory follows from.

/// The most fields of one head of HTTP/2 that are taken, from clients, peers and applications alike: Envoy's default and
/// hyper's limit for HTTP/1 are 100, and browsers send the cookies of a site, 180 at most, as a field each.
pub const MAX_FIELDS: u32 = 256;

/// What a field takes in memory beside its text, in bytes: some 180 in a map that has just grown (measured: a place of
/// 104, and the name's allocation), with some room.
pub const FIELD_BYTES: usize = 256;

/// Fields of heads that all connections of a worker together may have read before whoever they are for has looked at them:
/// a few hundred usual heads.
pub const UNSEEN_FIELDS: usize = 16 * 1024;
