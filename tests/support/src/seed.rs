//! Chance that can be replayed.

use std::time::{SystemTime, UNIX_EPOCH};

/// The environment variable that sets the seed.
const VARIABLE: &str = "BILLIARD_SEED";

/// A small generator (SplitMix64) whose seed is printed; `BILLIARD_SEED` replays a run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with the seed of the environment, else a fresh one. Prints it.
    ///
    /// # Panics
    ///
    /// When `BILLIARD_SEED` is set and is no number.
    #[must_use]
    pub fn from_env(what: &str) -> Self {
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is no number: {text:?}")),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64),
        };
        Self::with_seed(what, seed)
    }

    /// A generator with this seed. Prints it.
    #[must_use]
    pub fn with_seed(what: &str, seed: u64) -> Self {
        println!("{what}: {VARIABLE}={seed}");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Another generator, which goes its own way from here.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    /// A number below `bound`.
    ///
    /// # Panics
    ///
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}
