//! What a pool promises, with workers that share nothing.

use billiard_pool::Isolation;

mod conformance;

billiard_pool::init_for_tests!();

const ISOLATION: Isolation = Isolation::Strict;
