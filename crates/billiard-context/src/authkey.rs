//! The key by which the processes of one family know each other.

use std::{
    fmt,
    sync::{Mutex, PoisonError, atomic},
};

use serde::{Deserialize, Serialize};

use crate::sys;

/// A secret that a program and its children share, and nobody else: `multiprocessing`'s `authkey`.
///
/// The main process makes it at first use, 32 random bytes; every child, and every child of a child, has the same. It never
/// shows in `Debug`, cannot be made part of a message, and is overwritten when it is dropped.
///
/// ```
/// let key = billiard_context::authkey();
/// assert_eq!(key.as_bytes().len(), 32);
/// assert_eq!(format!("{key:?}"), "AuthKey(…)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AuthKey(Vec<u8>);

static KEY: Mutex<Option<AuthKey>> = Mutex::new(None);

/// The key of this process.
///
/// # Panics
///
/// When the kernel has no random numbers to give, which happens only while a machine starts.
#[must_use]
pub fn authkey() -> AuthKey {
    let mut key = KEY.lock().unwrap_or_else(PoisonError::into_inner);
    key.get_or_insert_with(|| AuthKey(sys::random::<32>().expect("the kernel gives random numbers").to_vec())).clone()
}

/// Sets the key of this process, and of the children that it starts from now on.
pub fn set_authkey(key: &[u8]) {
    *KEY.lock().unwrap_or_else(PoisonError::into_inner) = Some(AuthKey(key.to_vec()));
}

impl AuthKey {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it goes to a child, by the channels of the start alone.
    pub(crate) fn reveal(&self) -> Revealed {
        Revealed(self.0.clone())
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(…)")
    }
}

impl Drop for AuthKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // What is written to memory that is about to be freed would else be left out.
        std::hint::black_box(&self.0);
        atomic::compiler_fence(atomic::Ordering::SeqCst);
    }
}

/// A key on its way to a child.
#[derive(Serialize, Deserialize)]
pub(crate) struct Revealed(#[serde(with = "serde_bytes")] Vec<u8>);

impl Revealed {
    /// Makes it the key of this process.
    pub(crate) fn adopt(self) {
        *KEY.lock().unwrap_or_else(PoisonError::into_inner) = Some(AuthKey(self.0));
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revealed(…)")
    }
}
