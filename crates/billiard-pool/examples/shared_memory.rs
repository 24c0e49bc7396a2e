//! 256 MiB to a job and back, and not one byte of them copied: the buffer moves.
//!
//! `cargo run --release -p billiard-pool --example shared_memory`

use std::{error::Error, time::Instant};

use billiard_pool::Pool;
use billiard_shm::SharedBuffer;

fn brighten(mut image: SharedBuffer<u8>) -> SharedBuffer<u8> {
    for pixel in image.as_mut_slice() {
        *pixel = pixel.saturating_add(10);
    }
    image // moved in, moved out: one owner at any time
}

fn pass_on(image: SharedBuffer<u8>) -> SharedBuffer<u8> {
    image
}

fn main() -> Result<(), Box<dyn Error>> {
    billiard_pool::init();
    let pool = Pool::builder().workers(1).build()?;
    let mut image = SharedBuffer::<u8>::zeroed(256 << 20)?;
    image.as_mut_slice()[7] = 250;
    let image = pool.apply(brighten, image)?;
    assert_eq!(image.as_slice()[7], 255);
    assert_eq!(image.as_slice()[8], 10);

    let begun = Instant::now();
    let image = pool.apply(pass_on, image)?;
    println!("{} MiB there and back: {:?}", image.len() >> 20, begun.elapsed());
    pool.join()?;
    Ok(())
}
