//! An argument without serde's traits cannot travel, and the error says what to do.

struct Local(#[allow(dead_code)] u32);

fn take(_: Local) {}

fn main() {
    billiard::init();
    let pool = billiard::Pool::new().unwrap();
    let _ = pool.apply(take, Local(1));
}
