//! gzip: members one after the other, and zeros behind the last (RFC 1952).

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

use super::damaged;

/// A reader of the content of all members. Zeros may follow the last one, as padding; anything else is refused.
pub(super) struct GzipReader<R> {
    /// The current member, or nothing behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)) }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(into).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => damaged(error),
                _ => error,
            })?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match rest.fill_buf()?.first() {
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                _ => skip_zeros(rest)?,
            }
        }
        Ok(0)
    }
}

fn skip_zeros(mut rest: impl BufRead) -> io::Result<()> {
    loop {
        let bytes = rest.fill_buf()?;
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(damaged("there are other bytes behind it"));
        }
        match bytes.len() {
            0 => return Ok(()),
            count => rest.consume(count),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).expect("compressed");
        encoder.finish().expect("a member")
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        // In small pieces, so that the ends of members are anywhere in them.
        let input = io::BufReader::with_capacity(7, bytes);
        let read = GzipReader::new(input).read_to_end(&mut content);
        read.map(|_| content).map_err(|error| error.to_string())
    }

    /// Members are read as one, zeros behind them are padding, and other bytes are refused.
    #[test]
    fn members_and_padding() {
        let members = [packed(b"one "), packed(b""), packed(b"two")].concat();
        assert_eq!(read(&members).expect("content"), b"one two");
        assert_eq!(read(&[&members[..], &[0; 1000]].concat()).expect("content"), b"one two");
        for junk in [&b"junk"[..], b"\0\0junk", b"\x1fjunk, and more of it"] {
            let error = read(&[&members[..], junk].concat()).expect_err("junk");
            assert!(error.starts_with("its compressed data is damaged: "), "{error}");
        }
        let cut = read(&members[..members.len() - 1]).expect_err("cut off");
        assert!(!cut.contains("damaged"), "{cut}");
    }
}
