//! The running executable: where it is loaded, and how to tell it from another.
//!
//! A function crosses to a child as its distance from the load base. That means something in the
//! very same executable only, so both sides compare its [`Identity`] first.

use std::{ops::Range, os::unix::fs::MetadataExt, sync::OnceLock};

use libc::{c_int, c_void, dl_phdr_info, size_t};
use serde::{Deserialize, Serialize};

/// Where the executable is in memory, and which one it is.
#[derive(Debug, Default)]
pub(crate) struct Image {
    base: usize,
    /// The segments that hold code.
    code: Vec<Range<usize>>,
    build_id: Vec<u8>,
}

/// Which executable this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Identity {
    /// What the linker noted in it.
    BuildId(Vec<u8>),
    /// Device, inode, size, and time of change, where the linker noted nothing.
    File(u64, u64, u64, i64, i64),
    /// Neither is to be had.
    Unknown,
}

impl Image {
    /// The image of this process.
    pub(crate) fn this() -> &'static Self {
        static THIS: OnceLock<Image> = OnceLock::new();
        THIS.get_or_init(|| {
            let mut image = Self::default();
            let data = std::ptr::from_mut(&mut image).cast::<c_void>();
            // SAFETY: the callback has the type that is asked for and treats `data` as the image that it is.
            unsafe { libc::dl_iterate_phdr(Some(read_program), data) };
            image
        })
    }

    /// Which executable it is.
    pub(crate) fn identity(&self) -> Identity {
        if !self.build_id.is_empty() {
            return Identity::BuildId(self.build_id.clone());
        }
        std::fs::metadata("/proc/self/exe").map_or(Identity::Unknown, |file| {
            Identity::File(file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
        })
    }

    /// How far a function is from the load base; `None` when it is not in the main executable.
    pub(crate) fn offset_of(&self, function: usize) -> Option<u64> {
        self.code.iter().any(|range| range.contains(&function)).then(|| (function - self.base) as u64)
    }

    /// The function at that distance; `None` when there is no code.
    pub(crate) fn function_at(&self, offset: u64) -> Option<usize> {
        let function = self.base.checked_add(usize::try_from(offset).ok()?)?;
        self.code.iter().any(|range| range.contains(&function)).then_some(function)
    }
}

/// Called for each loaded object, the executable first: reads that one and stops.
///
/// # Safety
///
/// `data` points to an [`Image`] that nobody else uses, `info` is what `dl_iterate_phdr` passes.
unsafe extern "C" fn read_program(info: *mut dl_phdr_info, _: size_t, data: *mut c_void) -> c_int {
    // SAFETY: the caller of this callback passes a valid description.
    let info = unsafe { &*info };
    // SAFETY: `data` is the image that `Image::this` passed, and only this call uses it now.
    let image = unsafe { &mut *data.cast::<Image>() };
    // SAFETY: the description names so many headers.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    image.base = info.dlpi_addr as usize;
    for header in headers {
        let start = image.base.wrapping_add(header.p_vaddr as usize);
        let len = header.p_memsz as usize;
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => image.code.push(start..start + len),
            libc::PT_NOTE => {
                // SAFETY: notes are in a segment that is loaded for reading, and nobody writes them.
                let notes = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
                if let Some(id) = build_id(notes, header.p_align as usize) {
                    image.build_id = id.to_vec();
                }
            }
            _ => {}
        }
    }
    1
}

/// The build-id in a segment of notes: each a name's length, a description's length, a type, and the two, padded.
fn build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let padded = |len: u32| (len as usize).next_multiple_of(if align == 8 { 8 } else { 4 });
    let number = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    loop {
        let (name_len, id_len, kind) = (number(notes, 0)?, number(notes, 4)?, number(notes, 8)?);
        let name = notes.get(12..)?.get(..name_len as usize)?;
        let id_at = 12 + padded(name_len);
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return notes.get(id_at..)?.get(..id_len as usize);
        }
        notes = notes.get(id_at + padded(id_len)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_this_program_is_found_again() {
        let function = a_function_of_this_program_is_found_again as *const () as usize;
        let offset = Image::this().offset_of(function).expect("it is in the executable");
        assert_eq!(Image::this().function_at(offset), Some(function));
        assert_ne!(Image::this().identity(), Identity::Unknown);
    }

    #[test]
    fn a_function_of_a_library_and_an_offset_beside_the_code_are_refused() {
        assert_eq!(Image::this().offset_of(libc::getpid as *const () as usize), None);
        assert_eq!(Image::this().function_at(u64::MAX), None);
        assert_eq!(Image::this().function_at(0), None, "the file's header is no code");
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        for (name, id, kind) in [(&b"Xy\0"[..], &b"12345"[..], 9u32), (b"GNU\0", b"\xab\xcd\xef", 3)] {
            notes.extend((name.len() as u32).to_ne_bytes());
            notes.extend((id.len() as u32).to_ne_bytes());
            notes.extend(kind.to_ne_bytes());
            notes.extend(name);
            notes.resize(notes.len().next_multiple_of(4), 0);
            notes.extend(id);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id(&notes, 4), Some(&b"\xab\xcd\xef"[..]));
        for cut in 0..notes.len() - 4 {
            assert_eq!(build_id(&notes[..cut], 4), None, "{cut}");
        }
    }
}
