//! Values that may be in shared memory as they are.

/// A value that is its bytes: any process can have written them.
///
/// # Safety
///
/// * Any bytes are a value of the type, whoever wrote them: no `bool`, no `char`, no `enum`, no reference.
/// * It has no padding, so that every byte of it can be copied; and no interior mutability.
/// * It means the same in every process: no pointer, no descriptor, no index of something that a process has for itself.
/// * Its layout is the same in every program that shares it: a struct is `repr(C)` or `repr(transparent)`.
///
/// ```
/// use billiard_shm::Plain;
///
/// #[derive(Clone, Copy, Debug)]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
/// // SAFETY: two numbers, `repr(C)`, without padding.
/// unsafe impl Plain for Point {}
///
/// assert_eq!(Point::zeroed().x, 0.0);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot lie in shared memory as it is",
    label = "any bytes would have to be a value of this type",
    note = "numbers and arrays of them can; a `repr(C)` struct of such, without padding, if you `unsafe impl Plain` for it",
    note = "`bool`, `char`, enums and references cannot: not all bytes are values; tuples cannot: their layout is not fixed"
)]
pub unsafe trait Plain: Copy + Send + Sync + 'static {
    /// The value of no bytes but zeros.
    #[must_use]
    fn zeroed() -> Self {
        // SAFETY: any bytes are a value, as who implements the trait promises.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($number:ty),*) => {
        $(
            // SAFETY: it is a number.
            unsafe impl Plain for $number {}
        )*
    };
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

// SAFETY: it has no bytes.
unsafe impl Plain for () {}

// SAFETY: as its elements, which are one behind the other.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
