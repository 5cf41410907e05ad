//! LEB128 variable-length integers and zigzag, as the row codec uses them.

/// Appends `value` in 1 to 10 bytes.
pub fn put(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(lowest(value) | 0x80);
        value >>= 7;
    }
    buf.push(lowest(value));
}

fn lowest(value: u64) -> u8 {
    let [lowest, ..] = value.to_le_bytes();
    lowest
}

/// Reads a value from the front of `input`; `None` when it is truncated or does not fit 64 bits. Only the shortest form is
/// valid, so that equal batches have equal bytes.
#[inline(always)]
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        *input = rest;
        return Some(u64::from(first));
    }
    take_long(input, first, rest)
}

/// Reads a value of more than one byte.
fn take_long<'a>(input: &mut &'a [u8], first: u8, mut rest: &'a [u8]) -> Option<u64> {
    let mut value = u64::from(first & 0x7f);
    let mut shift = 7;
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            if byte == 0 {
                return None;
            }
            *input = rest;
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Folds the sign into the lowest bit, so that small magnitudes stay short.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_read_back_as_written(value: u64, tail: Vec<u8>) {
            let mut buf = Vec::new();
            put(&mut buf, value);
            buf.extend(&tail);
            let mut input = &buf[..];
            prop_assert_eq!(take(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn only_the_shortest_form_is_taken(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut input = &bytes[..];
            if let Some(value) = take(&mut input) {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - input.len()]);
            }
        }

        #[test]
        fn zigzag_keeps_the_value(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
