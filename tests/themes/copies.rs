//! Processes that are forked by hand.

use std::process::Command;

use billiard_test_support::Watchdog;

#[test]
fn handles_refuse_in_a_copy_made_by_hand_which_may_make_its_own() {
    let _watchdog = Watchdog::start("handles_refuse_in_a_copy_made_by_hand_which_may_make_its_own", 110);
    // That it is at the end of its output says that nobody is left who has it.
    let output = Command::new(env!("CARGO_BIN_EXE_child-copies")).output().expect("the helper program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().collect::<Vec<_>>(), ["children", "starts under way", "what copies leave", "pools"]);
}
