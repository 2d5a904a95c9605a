//! Hash maps for look-ups that every request pays.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use foldhash::SharedSeed;
use foldhash::fast::{FoldHasher, SeedableRandomState};

/// Several times faster than the standard hasher. Only for maps whose keys are literals of objects: clients, which bring what is
/// looked up, cannot make probes collide, and who writes objects does not know the seed.
pub type FastMap<K, V> = HashMap<K, V, Seeded>;

/// A fast hasher, with seeds of the operating system's randomness; foldhash by itself takes addresses of the process.
#[derive(Clone, Debug)]
pub struct Seeded(SeedableRandomState);

/// The seeds that all maps share.
static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));

fn random() -> u64 {
    RandomState::new().hash_one(())
}

impl Default for Seeded {
    fn default() -> Self {
        Self(SeedableRandomState::with_seed(random(), &SHARED))
    }
}

impl BuildHasher for Seeded {
    type Hasher = FoldHasher<'static>;

    #[inline(always)]
    fn build_hasher(&self) -> FoldHasher<'static> {
        self.0.build_hasher()
    }
}
