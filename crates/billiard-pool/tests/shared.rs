//! What a pool promises, with workers that share a job table.

use billiard_pool::Isolation;

mod conformance;

billiard_pool::init_for_tests!();

const ISOLATION: Isolation = Isolation::Shared;
