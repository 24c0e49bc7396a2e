//! A pool of one's own, every part in sight: connections and processes are all that it takes.
//!
//! Each worker has a private duplex connection; the parent gives work to whoever is idle and replaces the dead.

use std::{collections::VecDeque, error::Error};

use billiard_connection::{Connection, wait};
use billiard_context::{Context, Process};

fn worker(jobs: Connection) {
    while let Ok(n) = jobs.recv::<u64>() {
        assert!(n != 13, "unlucky"); // a job that ends its worker
        jobs.send(&(n * n)).expect("the parent is there");
    }
}

struct Member {
    process: Process,
    jobs: Connection,
    busy_with: Option<u64>,
}

fn hire(context: &Context) -> Result<Member, Box<dyn Error>> {
    let (ours, theirs) = Connection::pair()?;
    let process = context.process(worker, theirs).daemon(true).start()?;
    Ok(Member { process, jobs: ours, busy_with: None })
}

fn main() -> Result<(), Box<dyn Error>> {
    billiard_context::init();
    let context = Context::forkserver();
    let mut pool: Vec<Member> = (0..4).map(|_| hire(&context)).collect::<Result<_, _>>()?;
    let mut waiting: VecDeque<u64> = (0..100).collect();
    let mut done = 0;

    while done < 100 {
        for member in pool.iter_mut().filter(|member| member.busy_with.is_none()) {
            if let Some(n) = waiting.pop_front() {
                member.jobs.send(&n)?;
                member.busy_with = Some(n);
            }
        }
        let busy: Vec<usize> = (0..pool.len()).filter(|&i| pool[i].busy_with.is_some()).collect();
        let sources: Vec<&Connection> = busy.iter().map(|&i| &pool[i].jobs).collect();
        for ready in wait(&sources, None)? {
            let member = &mut pool[busy[ready]];
            match member.jobs.recv::<u64>() {
                Ok(square) => println!("{:?} -> {square}", member.busy_with.take()),
                Err(_) => {
                    println!("lost {:?}: {}", member.busy_with, member.process.join()?);
                    *member = hire(&context)?;
                }
            }
            done += 1;
        }
    }
    Ok(())
}
