//! A handle as bytes in a guest's memory.
//!
//! Handles are most of what a guest is given, each as forty values. The code that wasmtime derives looks for the guest's
//! memory anew for every one of them, which takes half as long again as the whole rest of a handle. Here the record is
//! put together first, and written at once. Texts are handed over by wasmtime, as in the derived code.

use std::mem::MaybeUninit;

use wasmtime::ValRaw;
use wasmtime::component::__internal::{InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lower};

use super::types::{Datetime, Handle};

/// The size of a handle by the canonical ABI.
const SIZE: usize = 160;

const _: () = assert!(Handle::SIZE32 == SIZE);

// SAFETY: a component's type is checked by the derived `ComponentType`, and the bytes are those that the canonical ABI
// has for it: the fields in their order, each at the next multiple of its alignment. Bytes between fields are zero.
// wasmtime hands over an offset with room for `SIZE32` bytes, and `get` checks that again. A flat handle is refused,
// which leaves nothing uninitialised that is used.
unsafe impl Lower for Handle {
    fn linear_lower_to_flat<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        // A result has one flat value at most, and no function of the contract takes a handle.
        Err(wasmtime::Error::msg("a handle is handed over in memory"))
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        let mut record = Record { bytes: [0; SIZE], at: 0 };
        record.text(cx, &self.reference)?;
        record.text(cx, &self.repository)?;
        record.optional_text(cx, self.tag.as_deref())?;
        record.optional(self.size_bytes, 8, 8, |record, size| record.number(size.to_le_bytes()));
        record.optional_text(cx, self.manifest_digest.as_deref())?;
        record.optional_text(cx, self.architecture.as_deref())?;
        record.optional_text(cx, self.os.as_deref())?;
        record.number(self.layer_count.to_le_bytes());
        record.instant(self.last_used_at);
        record.instant(self.created_at);
        record.instant(self.arrived_at);
        *cx.get(offset) = record.bytes;
        Ok(())
    }
}

/// The bytes of a handle, field by field.
struct Record {
    bytes: [u8; SIZE],
    /// The end of the last field.
    at: usize,
}

impl Record {
    /// Adds a number, which is aligned to its size.
    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.at = self.at.next_multiple_of(N);
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// Adds a value that may be absent, of this size and alignment.
    fn optional<T>(&mut self, value: Option<T>, size: usize, align: usize, add: impl FnOnce(&mut Self, T)) {
        let payload = self.at.next_multiple_of(align) + align;
        if let Some(value) = value {
            self.bytes[payload - align] = 1;
            self.at = payload;
            add(self, value);
        }
        self.at = payload + size;
    }

    /// Adds an instant that may be absent.
    fn instant(&mut self, time: Option<Datetime>) {
        self.optional(time, 16, 8, |record, time| {
            record.number(time.seconds.to_le_bytes());
            record.number(time.nanoseconds.to_le_bytes());
        });
    }

    /// Has a text written into the guest's memory, and adds its place and length.
    fn text<T>(&mut self, cx: &mut LowerContext<'_, T>, text: &str) -> wasmtime::Result<()> {
        let [place, length] = lower(cx, text)?;
        self.number(place.to_le_bytes());
        self.number(length.to_le_bytes());
        Ok(())
    }

    /// Adds a text that may be absent.
    fn optional_text<T>(&mut self, cx: &mut LowerContext<'_, T>, text: Option<&str>) -> wasmtime::Result<()> {
        let text = text.map(|text| lower(cx, text)).transpose()?;
        self.optional(text, 8, 4, |record, [place, length]| {
            record.number(place.to_le_bytes());
            record.number(length.to_le_bytes());
        });
        Ok(())
    }
}

/// Writes a text into the guest's memory, in the encoding that it wants. Returns its place and length.
fn lower<T>(cx: &mut LowerContext<'_, T>, text: &str) -> wasmtime::Result<[u32; 2]> {
    let mut flat = MaybeUninit::new([ValRaw::u32(0); 2]);
    text.linear_lower_to_flat(cx, InterfaceType::String, &mut flat)?;
    // SAFETY: it was initialised, and is at most written over.
    let flat = unsafe { flat.assume_init() };
    Ok(flat.map(|value| value.get_u32()))
}
