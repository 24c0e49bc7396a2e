//! What a process can know of its machine and itself, asked of real kernels and real processes.

mod group;

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    process::Command,
};

use billiard_context::{
    Context, CpuCountError, EndedBy, ExitStatus, Fd, MemoryError, MemoryUsage, Message, OomWatch, ParentDeathError,
    Process, Signal, TempDir, TempDirError, cpu_count, max_fds, parent_death_signal, set_parent_death_signal,
};
use billiard_test_support::{Watchdog, eventually, is_alive};
use group::{Group, enter};

billiard_context::init_for_tests!();

fn start<A: Message, R: Message>(function: fn(A) -> R, argument: A) -> Process<R> {
    Context::forkserver().process(function, argument).start().unwrap()
}

/// A child with a line to the test.
fn start_with_line<A: Message, R: Message>(
    function: fn((Fd<UnixStream>, A)) -> R,
    argument: A,
) -> (Process<R>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (start(function, (Fd::new(theirs), argument)), ours)
}

/// Says that a step is done, and waits to be told to go on.
fn step(line: &mut UnixStream) {
    line.write_all(b"x").unwrap();
    line.read_exact(&mut [0]).unwrap();
}

/// Waits until the child has done a step.
fn await_step(line: &mut UnixStream) {
    line.read_exact(&mut [0]).unwrap();
}

fn go_on(line: &mut UnixStream) {
    line.write_all(b"x").unwrap();
}

// --- CPUs --------------------------------------------------------------------------------------

#[test]
fn a_thread_that_may_run_on_one_cpu_counts_one() {
    let whole = cpu_count().unwrap();
    let pinned = std::thread::spawn(|| {
        // SAFETY: the set is plain words.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let len = size_of_val(&set);
        // SAFETY: the set is valid, and has the length that is told.
        assert_eq!(unsafe { libc::sched_getaffinity(0, len, &mut set) }, 0);
        // SAFETY: the number is below the size of the set.
        let first = (0..1024).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).unwrap();
        // SAFETY: as above.
        unsafe { libc::CPU_ZERO(&mut set) };
        // SAFETY: as above.
        unsafe { libc::CPU_SET(first, &mut set) };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::sched_setaffinity(0, len, &set) }, 0);
        cpu_count().unwrap()
    });
    assert_eq!(pinned.join().unwrap().get(), 1);
    assert_eq!(cpu_count().unwrap(), whole, "the other threads may run where they could");
}

fn count_inside(folder: String) -> usize {
    enter(&folder);
    cpu_count().unwrap().get()
}

#[test]
fn a_quota_around_the_group_of_a_process_counts() {
    let _watchdog = Watchdog::start("a_quota_around_the_group_of_a_process_counts", 60);
    let Some(group) = Group::make("cpu") else { return };
    if !group.first_version {
        println!("skipped: the second version has no processes in a group around another with its controllers");
        return;
    }
    let (inner, whole) = (group.inner().display().to_string(), cpu_count().unwrap().get());
    let count = || start(count_inside, inner.clone()).take_result().unwrap();
    assert_eq!(count(), whole, "no quota yet");
    group.set("cpu.cfs_quota_us", "150000");
    assert_eq!(count(), 1, "of {whole}");
    group.set("cpu.cfs_quota_us", "25000");
    assert_eq!(count(), 1, "never less");
    group.set("cpu.cfs_quota_us", "-1");
    assert_eq!(count(), whole);
}

/// What this process still knows when `/proc` is hidden; none when it cannot be hidden.
fn knows_without_proc(_: ()) -> Option<(String, String, bool)> {
    let (none, root, proc) = (c"none".as_ptr(), c"/".as_ptr(), c"/proc".as_ptr());
    // SAFETY: a number; this process has one thread.
    let mut unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if unshared != 0 {
        // SAFETY: as above.
        unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
    }
    let null = std::ptr::null();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the texts are valid, the others may be null.
    if unshared != 0 || unsafe { libc::mount(none, root, null, private, null.cast()) } != 0 {
        return None;
    }
    // SAFETY: as above.
    if unsafe { libc::mount(none, proc, c"tmpfs".as_ptr(), 0, null.cast()) } != 0 {
        return None;
    }
    let cpus = match cpu_count() {
        Err(CpuCountError::NoProc { path, .. }) => path.display().to_string(),
        other => format!("{other:?}"),
    };
    let memory = match MemoryUsage::of_this_process() {
        Err(MemoryError::Unreadable { .. }) => "unreadable".to_owned(),
        other => format!("{other:?}"),
    };
    let folder = TempDir::new().is_ok_and(|folder| folder.path().is_dir() && folder.close().is_ok());
    Some((cpus, memory, folder && !OomWatch::of_this_process().killed_since()))
}

#[test]
fn without_proc_nothing_is_guessed() {
    let _watchdog = Watchdog::start("without_proc_nothing_is_guessed", 60);
    let Some((cpus, memory, rest_works)) = start(knows_without_proc, ()).take_result().unwrap() else {
        println!("skipped: this user cannot hide /proc from itself");
        return;
    };
    assert_eq!((cpus.as_str(), memory.as_str(), rest_works), ("/proc/self/mountinfo", "unreadable", true));
}

// --- memory ------------------------------------------------------------------------------------

const MIB: u64 = 1 << 20;

fn grow_and_shrink((mut line, own, shared): (Fd<UnixStream>, usize, usize)) {
    let large = vec![1u8; own];
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), shared, libc::PROT_WRITE, flags, -1, 0) };
    assert_ne!(map, libc::MAP_FAILED);
    // SAFETY: the mapping has that length, may be written, and is this function's own.
    unsafe { std::ptr::write_bytes(map.cast::<u8>(), 1, shared) };
    step(&mut line);
    drop(large);
    step(&mut line);
}

#[test]
fn the_memory_of_a_child_grows_and_shrinks_and_its_peak_stays() {
    let _watchdog = Watchdog::start("the_memory_of_a_child_grows_and_shrinks_and_its_peak_stays", 60);
    let (mut line, theirs) = UnixStream::pair().unwrap();
    let mut child = start(grow_and_shrink, (Fd::new(theirs), 96 << 20, 32 << 20));
    await_step(&mut line);
    let large = MemoryUsage::of(child.pid()).unwrap();
    assert!(large.anonymous > 88 * MIB && large.shared > 24 * MIB && large.shared < 64 * MIB, "{large:?}");
    assert!(large.file > 0 && large.resident > 112 * MIB, "{large:?}");
    go_on(&mut line);
    await_step(&mut line);
    let small = MemoryUsage::of(child.pid()).unwrap();
    assert!(small.anonymous < large.anonymous - 64 * MIB && small.shared > 24 * MIB, "{small:?}, before {large:?}");
    assert!(small.peak.unwrap() > 112 * MIB && small.peak.unwrap() > small.resident + 64 * MIB, "{small:?}");
    go_on(&mut line);
    child.join().unwrap().exit_ok().unwrap();
}

#[test]
fn the_dead_have_no_memory() {
    let _watchdog = Watchdog::start("the_dead_have_no_memory", 60);
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    let has_ended = || matches!(MemoryUsage::of(pid), Err(MemoryError::Ended { pid: dead }) if dead == pid);
    assert!(eventually(30, has_ended), "as long as it is not reaped");
    child.wait().unwrap();
    assert!(matches!(MemoryUsage::of(u32::MAX), Err(MemoryError::Ended { .. })), "and none of that number");
}

// --- the OOM killer ----------------------------------------------------------------------------

fn eat((mut line, folder): (Fd<UnixStream>, String)) -> String {
    enter(&folder);
    step(&mut line);
    let mut eaten = Vec::new();
    for _ in 0..256 {
        eaten.push(vec![1u8; 1 << 20]);
    }
    format!("the limit lets {} MiB pass", eaten.len())
}

/// A group with little memory.
fn hungry_group() -> Option<Group> {
    let group = Group::make("memory")?;
    let limit = (24 * MIB).to_string();
    if group.first_version {
        group.set("memory.limit_in_bytes", &limit);
        if group.folder().join("memory.memsw.limit_in_bytes").exists() {
            group.set("memory.memsw.limit_in_bytes", &limit);
        }
    } else {
        group.set("memory.max", &limit);
        if group.folder().join("memory.swap.max").exists() {
            group.set("memory.swap.max", "0");
        }
    }
    Some(group)
}

fn devour(_: ()) {
    let mut eaten = Vec::new();
    for _ in 0..256 {
        eaten.push(vec![1u8; 1 << 20]);
    }
    std::hint::black_box(eaten);
}

/// How a child ended that ate too much, and one that was killed from outside.
fn starve_a_child(folder: String) -> [ExitStatus; 2] {
    enter(&folder);
    let hungry = Context::forkserver().process(devour, ()).start().unwrap().join().unwrap();
    let mut innocent = start(wait_for_ever, ());
    // SAFETY: a signal to a child that nobody has reaped.
    unsafe { libc::kill(innocent.pid().cast_signed(), libc::SIGKILL) };
    [hungry, innocent.join().unwrap()]
}

fn wait_for_ever(_: ()) {
    pause_for_ever()
}

#[test]
fn a_status_tells_who_was_killed_for_want_of_memory() {
    let _watchdog = Watchdog::start("a_status_tells_who_was_killed_for_want_of_memory", 60);
    let Some(group) = hungry_group() else { return };
    let [hungry, innocent] = start(starve_a_child, group.folder().display().to_string()).take_result().unwrap();
    assert_eq!((hungry.signal(), hungry.ended_by()), (Some(9), EndedBy::OutOfMemory), "{hungry}");
    assert_eq!((innocent.signal(), innocent.ended_by()), (Some(9), EndedBy::Unknown), "{innocent}");
}

#[test]
fn a_kill_for_want_of_memory_is_told_from_another() {
    let _watchdog = Watchdog::start("a_kill_for_want_of_memory_is_told_from_another", 60);
    let Some(group) = hungry_group() else { return };
    let folder = group.folder().display().to_string();
    let start = || {
        let (child, mut line) = start_with_line(eat, folder.clone());
        await_step(&mut line);
        (child, line)
    };

    let (mut killed_by_us, _line) = start();
    let mut watch = OomWatch::of(killed_by_us.pid());
    killed_by_us.kill().unwrap();
    assert_eq!(killed_by_us.join().unwrap().signal(), Some(9));
    assert!(!watch.killed_since(), "it had memory enough");

    let (mut one, mut line) = start();
    let (mut two, mut other_line) = start();
    let (mut around, mut later) = (OomWatch::of_this_process(), watch.clone());
    assert!(!watch.killed_since());
    go_on(&mut line);
    assert_eq!(one.join().unwrap().signal(), Some(9), "{:?}", one.take_result());
    assert!(watch.killed_since());
    assert!(!watch.killed_since(), "one kill is told of once");
    go_on(&mut other_line);
    assert_eq!(two.join().unwrap().signal(), Some(9), "{:?}", two.take_result());
    assert!(watch.killed_since());
    assert_eq!([(); 3].map(|()| later.killed_since()), [true, true, false], "both, for who looks late");
    assert!(!around.killed_since(), "the group around it is another");

    let (mut innocent, _line) = start();
    innocent.kill().unwrap();
    innocent.join().unwrap();
    assert!(!watch.killed_since());
}

// --- private folders ---------------------------------------------------------------------------

fn own_a_folder((mut line, place): (Fd<UnixStream>, String)) {
    let folder = TempDir::new_in(place).unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    step(&mut line);
    std::process::exit(0); // without dropping it
}

#[test]
fn the_folder_of_a_killed_owner_goes_with_the_next() {
    let _watchdog = Watchdog::start("the_folder_of_a_killed_owner_goes_with_the_next", 60);
    let place = TempDir::new().unwrap();
    let inside = || fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    for killed in [true, false] {
        let (mut owner, mut line) = start_with_line(own_a_folder, place.path().display().to_string());
        await_step(&mut line);
        let theirs = inside();
        drop(TempDir::new_in(&place).unwrap());
        assert_eq!((inside(), theirs.len()), (theirs.clone(), 1), "it is in use");
        if killed {
            owner.kill().unwrap()
        } else {
            go_on(&mut line)
        }
        owner.join().unwrap();
        assert!(theirs[0].join("file").exists());
        let next = TempDir::new_in(&place).unwrap();
        assert_eq!(inside(), [next.path()]);
    }
}

/// As a user without privileges: a closed folder inside is removed, and where the umask forbids everything, nothing is left.
fn as_a_plain_user(place: String) -> (Option<String>, bool, bool) {
    const NOBODY: u32 = 65534;
    // SAFETY: it has no preconditions.
    if unsafe { libc::getuid() } == 0 {
        // SAFETY: three numbers.
        assert_eq!(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }, 0);
    }
    let folder = TempDir::new_in(&place).unwrap();
    let (path, closed) = (folder.path().to_owned(), folder.path().join("a/closed"));
    fs::create_dir_all(&closed).unwrap();
    fs::write(closed.join("file"), "x").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(path.join("a"), Permissions::from_mode(0o500)).unwrap();
    let closing = folder.close().err().map(|error| format!("{error:?}"));
    let gone = !path.exists();
    // SAFETY: it has no preconditions.
    unsafe { libc::umask(0o777) };
    let refused = matches!(TempDir::new_in(&place), Err(TempDirError::Make { .. }));
    (closing, gone, refused && fs::read_dir(&place).unwrap().next().is_none())
}

#[test]
fn a_plain_user_needs_no_more() {
    let _watchdog = Watchdog::start("a_plain_user_needs_no_more", 60);
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
    let mut child = start(as_a_plain_user, place.path().display().to_string());
    assert_eq!(child.take_result().unwrap(), (None, true, true));
}

// --- descriptors -------------------------------------------------------------------------------

/// Makes `close_range` fail as old containers do.
fn forbid_close_range() {
    let load_number =
        libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
    let number = libc::SYS_close_range as u32;
    let is_it =
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: number };
    let answer = |k| libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut filter = [load_number, is_it, refuse, answer(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: four numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and what it points to are valid during the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) }, 0);
    // SAFETY: nobody has a descriptor of that number.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 1 << 20, 1 << 20, 0) }, -1);
}

/// Ends with code 42 when exactly the named descriptors are left. There is no other way to tell: its report channel is closed too.
fn close_others((forbidden, keep_some): (bool, bool)) {
    if forbidden {
        forbid_close_range();
    }
    let file = File::open("/dev/null").unwrap();
    for number in [50, 51, 52, 300] {
        // SAFETY: nobody has these numbers.
        assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
    }
    // SAFETY: `dup2` has just made it, and it is closed by nobody.
    let kept = unsafe { BorrowedFd::borrow_raw(51) };
    let (input, errors) = (std::io::stdin(), std::io::stderr());
    let (keep, expected) = if keep_some {
        (vec![kept, errors.as_fd(), kept, input.as_fd()], vec![0, 2, 51])
    } else {
        (Vec::new(), Vec::new())
    };
    // SAFETY: this process has one thread, and ends without a destructor.
    let closed = unsafe { billiard_context::close_fds_except(&keep) };
    let listed = fs::read_dir("/proc/self/fd").unwrap();
    let mut left: Vec<i32> =
        listed.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // The folder had the lowest number that was free, and is closed by now.
    // SAFETY: it reads the flags of any number.
    left.retain(|&number| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0);
    left.sort_unstable();
    let code = if closed.is_ok() && left == expected { 42 } else { 1 };
    // SAFETY: always.
    unsafe { libc::_exit(code) }
}

#[test]
fn exactly_the_named_descriptors_stay_open() {
    let _watchdog = Watchdog::start("exactly_the_named_descriptors_stay_open", 60);
    for forbidden in [false, true] {
        for keep_some in [false, true] {
            let mut child = start(close_others, (forbidden, keep_some));
            let status = child.join().unwrap();
            assert_eq!(status.code(), Some(42), "forbidden: {forbidden}, some kept: {keep_some}");
        }
    }
}

#[test]
fn the_limit_of_descriptors_is_the_one_that_the_kernel_keeps() {
    let text = fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap();
    assert_eq!(max_fds(), soft.parse().ok(), "{line}");
}

// --- the parent's death ------------------------------------------------------------------------

/// Forks; what the copy does must be fit for a copy of a threaded process.
fn fork(copy: impl FnOnce() -> i32) -> i32 {
    // SAFETY: what the copies in these tests do is calls to the kernel.
    match unsafe { libc::fork() } {
        0 => {
            let code = copy();
            // SAFETY: always.
            unsafe { libc::_exit(code) }
        }
        child => child,
    }
}

fn pause_for_ever() -> ! {
    loop {
        // SAFETY: it has no preconditions.
        unsafe { libc::pause() };
    }
}

/// The status of a child that was forked by a thread which ends, while the process goes on.
fn outlive_the_forking_thread(_: ()) -> i32 {
    let this = std::process::id();
    let forking = std::thread::spawn(move || {
        let (mut ready, mut say) = std::io::pipe().unwrap();
        let child = fork(|| {
            if set_parent_death_signal(Some(Signal::KILL), this).is_err() || say.write_all(b"x").is_err() {
                return 1;
            }
            pause_for_ever()
        });
        drop(say);
        ready.read_exact(&mut [0]).unwrap();
        child
    });
    let (child, mut status) = (forking.join().unwrap(), 0);
    // SAFETY: the place is valid, and the child this function's own.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    status
}

#[test]
fn the_signal_comes_when_the_forking_thread_ends() {
    let _watchdog = Watchdog::start("the_signal_comes_when_the_forking_thread_ends", 60);
    assert_eq!(start(outlive_the_forking_thread, ()).take_result().unwrap(), libc::SIGKILL);
}

/// Has a child that asks for the signal when it is too late.
fn leave_a_late_child((line, _): (Fd<UnixStream>, ())) {
    let this = std::process::id();
    let (mut ready, mut say) = std::io::pipe().unwrap();
    fork(|| {
        // SAFETY: it has no preconditions.
        unsafe { libc::setsid() };
        // A signal that does nothing: to see that the refused request leaves it.
        let asked = set_parent_death_signal(Some(Signal::CONT), this).is_ok() && say.write_all(b"x").is_ok();
        while std::os::unix::process::parent_id() == this {
            // SAFETY: a number.
            unsafe { libc::usleep(1000) };
        }
        let late = match set_parent_death_signal(Some(Signal::KILL), this) {
            Err(ParentDeathError::OtherParent { expected, found }) => expected == this && found != this,
            _ => false,
        };
        let kept = matches!(parent_death_signal(), Ok(Some(Signal::CONT)));
        let good = asked && late && kept;
        i32::from((&*line).write_all(if good { b"y" } else { b"n" }).is_err())
    });
    drop(say);
    ready.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_request_that_comes_too_late_is_an_error() {
    let _watchdog = Watchdog::start("a_request_that_comes_too_late_is_an_error", 60);
    let (mut child, mut line) = start_with_line(leave_a_late_child, ());
    child.join().unwrap().exit_ok().unwrap();
    let mut answer = [0];
    line.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"y");
}

fn asks((mut line, _): (Fd<UnixStream>, ())) {
    let parent = std::os::unix::process::parent_id();
    assert_eq!(parent_death_signal().unwrap(), Some(Signal::KILL), "a child has it from its start");
    assert!(matches!(set_parent_death_signal(Some(Signal::TERM), 1 << 30), Err(ParentDeathError::OtherParent { .. })));
    assert_eq!(parent_death_signal().unwrap(), Some(Signal::KILL), "no failure has changed it");
    for signal in [Some(Signal::TERM), Signal::from_raw(40), None, Some(Signal::KILL)] {
        set_parent_death_signal(signal, parent).unwrap();
        assert_eq!(parent_death_signal().unwrap(), signal);
    }
    step(&mut line);
}

#[test]
fn what_was_asked_for_is_in_force_and_what_was_refused_is_not() {
    let _watchdog = Watchdog::start("what_was_asked_for_is_in_force_and_what_was_refused_is_not", 60);
    let (mut child, mut line) = start_with_line(asks, ());
    await_step(&mut line);
    assert!(is_alive(child.pid()));
    go_on(&mut line);
    child.join().unwrap().exit_ok().unwrap();
}
