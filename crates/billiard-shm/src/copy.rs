//! Copies of many bytes out of memory, or into it, that others may write meanwhile: by an instruction of the processor, where the compiler would
//! make one load and one store for each word.

/// From how many bytes on it is worth its start.
const LEAST: usize = 512;

/// Copies so many bytes; false when nothing was done: they are few, or the processor has no such instruction.
///
/// # Safety
///
/// `from` can be read and `into` written for so many bytes, and they do not overlap. Either may be written by others meanwhile if all of them do it by atomic stores, or in
/// other processes: what was copied is a mixture then.
#[inline]
pub(crate) unsafe fn many(from: *const u8, into: *mut u8, len: usize) -> bool {
    if len < LEAST || !cfg!(all(target_arch = "x86_64", not(miri))) {
        return false;
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as the caller promises; the direction flag is clear, as it is by the ABI. To the compiler this is an access whose kind it does not know, which includes
    // that of atomic ones; stores behind it are not seen before it (Intel SDM volume 1, 7.3.9.3).
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") into => _,
            options(nostack, preserves_flags)
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_copied_and_no_more() {
        for len in [0, 1, LEAST - 1, LEAST, LEAST + 1, 5 * LEAST + 3, 1 << 20] {
            for shift in 0..3 {
                let from: Vec<u8> = (0..len + shift).map(|n| (n % 251) as u8).collect();
                let mut into = vec![255; len + 2];
                let (source, target) = (from[shift..].as_ptr(), into[1..].as_mut_ptr());
                // SAFETY: so many bytes are behind both, and they are two vectors.
                let copied = unsafe { many(source, target, len) };
                assert_eq!(copied, len >= LEAST && cfg!(all(target_arch = "x86_64", not(miri))));
                if copied {
                    assert!(into[1..=len] == from[shift..] && into[0] == 255 && into[len + 1] == 255);
                } else {
                    assert!(into.iter().all(|&byte| byte == 255));
                }
            }
        }
    }
}
