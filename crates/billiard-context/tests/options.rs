//! What a child is given and allowed, by `forkserver` and `spawn` alike. Plain tests, run in parallel.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

use billiard_context::{ChildError, Context, Error, Fd, Resource, Signal, Stdio, current, parent};
use billiard_test_support::Watchdog;

billiard_context::init_for_tests!();

const BOTH: [fn() -> Context; 2] = [Context::forkserver, Context::spawn];

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("billiard-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
}

fn status(_: ()) -> BTreeMap<String, String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let pairs = status.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn directory(_: ()) -> PathBuf {
    std::env::current_dir().unwrap()
}

#[test]
fn it_has_the_directory_that_was_asked_for() {
    let _watchdog = Watchdog::start("it_has_the_directory_that_was_asked_for", 60);
    let wanted = folder("directory");
    for context in BOTH {
        let mut child = context().process(directory, ()).directory(&wanted).start().unwrap();
        assert_eq!(child.take_result().unwrap(), wanted);
        let missing = context().process(directory, ()).directory("/no/such/folder").start().unwrap_err();
        let Error::Configuration { what, source } = &missing else { panic!("{missing:?}") };
        assert!(what.contains("/no/such/folder") && source.is_some(), "{missing:?}");
    }
    std::fs::remove_dir(wanted).unwrap();
}

fn environment(_: ()) -> BTreeMap<String, String> {
    std::env::vars().collect()
}

#[test]
fn it_has_the_environment_that_was_asked_for() {
    let _watchdog = Watchdog::start("it_has_the_environment_that_was_asked_for", 60);
    for context in BOTH {
        let run = |builder: billiard_context::ProcessBuilder<'_, (), BTreeMap<String, String>>| {
            builder.start().unwrap().take_result().unwrap()
        };
        let seen = run(context().process(environment, ()).env("TEA", "two=2").env_remove("PATH"));
        let mut expected: BTreeMap<String, String> = std::env::vars().collect();
        expected.remove("PATH");
        expected.insert("TEA".into(), "two=2".into());
        assert_eq!(seen, expected);
        let seen = run(context().process(environment, ()).env("LOST", "x").env_clear().env("KEPT", ""));
        assert_eq!(seen, BTreeMap::from([("KEPT".into(), String::new())]));
        // And the next one has its starter's again.
        assert_eq!(run(context().process(environment, ())), std::env::vars().collect());
        for (name, value) in [("", "x"), ("a=b", "x"), ("a", "x\0y"), ("a\0b", "x")] {
            let refused = context().process(environment, ()).env(name, value).start();
            assert!(matches!(refused, Err(Error::Configuration { .. })), "{name:?} {value:?}");
        }
    }
}

fn echoes(_: ()) {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    print!("{text}, aloud");
    eprint!("{text}, in error");
}

#[test]
fn its_streams_lead_where_they_were_asked_to() {
    let _watchdog = Watchdog::start("its_streams_lead_where_they_were_asked_to", 60);
    for context in BOTH {
        let builder = context().process(echoes, ()).stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
        let mut child = builder.start().unwrap();
        child.take_stdin().unwrap().write_all(b"hello").unwrap();
        assert!(child.take_stdin().is_none());
        let (mut out, mut err) = (String::new(), String::new());
        child.take_stdout().unwrap().read_to_string(&mut out).unwrap();
        child.take_stderr().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("hello, aloud", "hello, in error"));
        assert!(child.join().unwrap().success());

        // Files, and nothing.
        let path = folder("streams").join(format!("{:?}", context().start_method()));
        let mut file = File::create_new(&path).unwrap();
        file.write_all(b"from a file").unwrap();
        let input = File::open(&path).unwrap();
        let mut output = File::options().read(true).append(true).open(&path).unwrap();
        let builder = context().process(echoes, ()).stdin(input).stdout(output.try_clone().unwrap());
        assert!(builder.stderr(Stdio::Null).start().unwrap().join().unwrap().success());
        let mut text = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "from a filefrom a file, aloud");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn it_is_limited_as_asked() {
    let _watchdog = Watchdog::start("it_is_limited_as_asked", 60);
    for context in BOTH {
        // `/proc/self/limits` has a line for each.
        fn limits(_: ()) -> String {
            std::fs::read_to_string("/proc/self/limits").unwrap()
        }
        let builder = context().process(limits, ()).limit(Resource::OpenFiles, 100).limit(Resource::OpenFiles, 77);
        let builder = builder.limit(Resource::CpuTime, 1000).limit(Resource::CoreFile, 0);
        let limits = builder.start().unwrap().take_result().unwrap();
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max open files"), ["77", "77"]);
        assert_eq!(limit("Max cpu time"), ["1000", "1000"]);
        assert_eq!(limit("Max core file size"), ["0", "0"]);

        fn allocates(bytes: usize) -> bool {
            Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
        }
        let mut child = context().process(allocates, 2 << 30).limit(Resource::AddressSpace, 1 << 30).start().unwrap();
        assert!(!child.take_result().unwrap(), "there is no room for 2 GiB in 1 GiB");
        assert!(context().process(allocates, 2 << 30).start().unwrap().take_result().unwrap());
    }
}

fn burns(_: ()) {
    loop {
        std::hint::black_box(0);
    }
}

#[test]
fn a_limit_of_processor_time_ends_it() {
    let _watchdog = Watchdog::start("a_limit_of_processor_time_ends_it", 60);
    let mut child = Context::forkserver().process(burns, ()).limit(Resource::CpuTime, 1).start().unwrap();
    let status = child.join().unwrap();
    // The hard limit is the soft one: the kernel does not ask first.
    assert!([Signal::XCPU, Signal::KILL].iter().any(|signal| status.signal() == Some(signal.as_raw())), "{status}");
}

#[test]
fn its_umask_niceness_cpus_and_privileges_are_as_asked() {
    let _watchdog = Watchdog::start("its_umask_niceness_cpus_and_privileges_are_as_asked", 60);
    fn niceness(_: ()) -> i64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }
    for context in BOTH {
        let before = status(());
        let first = before["Cpus_allowed_list"].split([',', '-']).next().unwrap().parse().unwrap();
        let builder = context().process(status, ()).umask(0o137).cpus([first]).no_new_privileges();
        let seen = builder.start().unwrap().take_result().unwrap();
        assert_eq!(seen["Umask"], "0137");
        assert_eq!(seen["Cpus_allowed_list"], first.to_string());
        assert_eq!((before["NoNewPrivs"].as_str(), seen["NoNewPrivs"].as_str()), ("0", "1"));
        assert_eq!(context().process(status, ()).start().unwrap().take_result().unwrap()["Umask"], before["Umask"]);

        let mut child = context().process(niceness, ()).niceness(3).start().unwrap();
        assert_eq!(child.take_result().unwrap(), niceness(()) + 3);

        // What the child finds to be impossible is told as that.
        let mut child = context().process(status, ()).cpus([100_000]).start().unwrap();
        let error = child.take_result().unwrap_err();
        assert!(matches!(&error, ChildError::Setup(why) if why.message().contains("CPUs")), "{error}");
        assert!(matches!(context().process(status, ()).cpus([]).start(), Err(Error::Configuration { .. })));
    }
}

fn reads_numbered((numbers, extra): (Vec<i32>, Fd<File>)) -> Vec<String> {
    let read = |file: &mut File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    // SAFETY: they were given to this process by these numbers.
    let mut texts: Vec<_> = numbers.iter().map(|&number| read(&mut unsafe { File::from_raw_fd(number) })).collect();
    texts.push(read(&mut extra.into_inner()));
    texts
}

#[test]
fn descriptors_have_the_numbers_that_were_asked_for() {
    let _watchdog = Watchdog::start("descriptors_have_the_numbers_that_were_asked_for", 60);
    let path = folder("descriptors").join("file");
    for context in BOTH {
        let file = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let file = File::open(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            file
        };
        // All numbers that a child's own descriptors may have, so that some are in the way.
        let numbers: Vec<i32> = (3..20).collect();
        let mut builder = context().process(reads_numbered, (numbers.clone(), Fd::new(file("in the argument"))));
        for &number in &numbers {
            builder = builder.descriptor(number, file(&format!("number {number}")));
        }
        let mut expected: Vec<_> = numbers.iter().map(|number| format!("number {number}")).collect();
        expected.push("in the argument".into());
        assert_eq!(builder.start().unwrap().take_result().unwrap(), expected);

        // Two that want each other's place.
        let (left, right) = (file("left"), file("right"));
        let (a, b) = (left.as_raw_fd(), right.as_raw_fd());
        let builder = context().process(reads_numbered, (vec![b, a], Fd::new(file(""))));
        let builder = builder.descriptor(a, OwnedFd::from(right)).descriptor(b, left);
        assert_eq!(builder.start().unwrap().take_result().unwrap(), ["left", "right", ""]);

        for (first, second) in [(1, 9), (-1, 9), (9, 9)] {
            let builder = context().process(reads_numbered, (vec![], Fd::new(file(""))));
            let refused = builder.descriptor(first, file("")).descriptor(second, file("")).start();
            assert!(matches!(refused, Err(Error::Configuration { .. })), "{first} {second}");
        }
    }
    std::fs::remove_dir(path.parent().unwrap()).unwrap();
}

fn names(depth: u32) -> Vec<(String, Option<u32>, String, u32)> {
    let this = current();
    let parent = parent().unwrap().unwrap();
    assert!(parent.is_alive() && !parent.join_timeout(std::time::Duration::ZERO).unwrap());
    let mut names = vec![(this.name.to_owned(), this.index, parent.name().to_owned(), parent.pid())];
    if depth > 0 {
        names.extend(Context::forkserver().process(names_again, depth - 1).start().unwrap().take_result().unwrap());
    }
    names
}

fn names_again(depth: u32) -> Vec<(String, Option<u32>, String, u32)> {
    names(depth)
}

#[test]
fn it_knows_who_it_is_and_whose_child() {
    let _watchdog = Watchdog::start("it_knows_who_it_is_and_whose_child", 60);
    assert!(parent().unwrap().is_none());
    for context in BOTH {
        let mut child = context().process(names, 1).index(5).start().unwrap();
        let seen = child.take_result().unwrap();
        assert_eq!(seen[0], (child.name().to_owned(), Some(5), "MainProcess".into(), std::process::id()));
        assert_eq!(seen[1], (format!("{}:1", child.name()), None, child.name().to_owned(), child.pid()));
    }
}

fn key(_: ()) -> Vec<u8> {
    billiard_context::authkey().as_bytes().to_vec()
}

fn key_of_a_child(_: ()) -> (Vec<u8>, Vec<u8>) {
    (key(()), Context::spawn().process(key, ()).start().unwrap().take_result().unwrap())
}

#[test]
fn a_family_has_one_key() {
    let _watchdog = Watchdog::start("a_family_has_one_key", 60);
    let own = key(());
    assert_ne!(own, [0; 32]);
    for context in BOTH {
        let seen = context().process(key_of_a_child, ()).start().unwrap().take_result().unwrap();
        assert_eq!(seen, (own.clone(), own.clone()));
    }
}
