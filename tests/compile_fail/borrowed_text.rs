//! A `&str` borrows, and cannot travel.

fn count(text: &str) -> usize {
    text.len()
}

fn main() {
    billiard::init();
    let pool = billiard::Pool::new().unwrap();
    let _ = pool.apply(count, "hello");
}
