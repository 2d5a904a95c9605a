//! Limits on the heads of HTTP messages. The rooms that parse heads enforce them, and the agent's memory bound is
//! computed from them.

/// The most fields of one HTTP/2 head, from clients, peers and applications alike. Envoy's default and hyper's limit
/// for HTTP/1 are 100; browsers send a site's cookies, at most 180, as one field each.
pub const MAX_FIELDS: u32 = 256;

/// What a field takes in memory besides its text, in bytes: some 180 in a map that has just grown (measured: a slot of
/// 104, and the name's allocation), rounded up.
pub const FIELD_BYTES: usize = 256;

/// Header fields that all connections of a worker together may have parsed before their consumer has read them: a few
/// hundred usual heads.
pub const UNSEEN_FIELDS: usize = 16 * 1024;
