//! What the programs of this package share. Each is named after a group of cases and answers for the subjects that need
//! no package of their own: this project's, and those that it is held against, the kernel's and the standard library's.

pub mod ballast;
pub mod frame;
pub mod timing;
