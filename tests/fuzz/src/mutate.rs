//! How inputs are changed. libFuzzer knows bytes; what is here knows what they are bytes of.
//!
//! Checksums are put right after each change, since hardly any bytes get past them by chance; so are lengths that say
//! how many blocks there are. Compressed bytes are changed as they are or in what they hold.

use std::io::{Read, Write as _};

use larder_erofs::format::{FormatError, Superblock};
use libfuzzer_sys::fuzzer_mutate;

/// The size of a tar header, and of the blocks of an archive.
const TAR_BLOCK: usize = 512;

/// The size of a block of an image.
const EROFS_BLOCK: usize = 4096;

/// The most that is decompressed to be changed.
const CONTENT: u64 = 256 << 10;

/// Changes a tar archive of `size` bytes that lies in `data`, compressed or not. Gives its new size.
pub fn tar(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(seed.into());
    if random.below(4) > 0
        && let Some((mut content, pack)) = unpacked(&data[..size])
    {
        let length = content.len();
        let room = length.max(4 * max_size);
        content.resize(room, 0);
        let length = plain_tar(&mut content, length, room, &mut random);
        let packed = pack(&content[..length]);
        if packed.len() <= max_size {
            data[..packed.len()].copy_from_slice(&packed);
            return packed.len();
        }
    }
    plain_tar(data, size, max_size, &mut random)
}

/// Compresses bytes.
type Pack = fn(&[u8]) -> Vec<u8>;

/// What compressed bytes hold, as far as it can be read, and how to compress it again.
fn unpacked(bytes: &[u8]) -> Option<(Vec<u8>, Pack)> {
    let mut content = Vec::new();
    let (mut reader, pack): (Box<dyn Read + '_>, Pack) = match bytes {
        [0x1f, 0x8b, ..] => (Box::new(flate2::bufread::MultiGzDecoder::new(bytes)), gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            (Box::new(zstd::stream::read::Decoder::with_buffer(bytes).ok()?), zstandard)
        }
        _ => return None,
    };
    // An error ends it as its end does.
    let _ = reader.by_ref().take(CONTENT).read_to_end(&mut content);
    Some((content, pack))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).and_then(|()| writer.finish()).unwrap_or_default()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap_or_default()
}

fn plain_tar(data: &mut [u8], size: usize, max_size: usize, random: &mut Random) -> usize {
    let size = match random.below(4) {
        0 => change_blocks(data, size, max_size, random),
        _ => fuzzer_mutate(data, size, max_size),
    };
    // Now and then a wrong checksum is what is worth a try.
    if random.below(50) > 0 {
        repair_headers(&mut data[..size]);
    }
    size
}

/// Removes a block, or puts a copy of one elsewhere.
fn change_blocks(data: &mut [u8], size: usize, max_size: usize, random: &mut Random) -> usize {
    let blocks = size / TAR_BLOCK;
    if blocks == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let from = random.below(blocks) * TAR_BLOCK;
    let to = random.below(blocks + 1) * TAR_BLOCK;
    if size + TAR_BLOCK > max_size || random.below(3) == 0 {
        data.copy_within(from + TAR_BLOCK..size, from);
        return size - TAR_BLOCK;
    }
    let mut block = [0; TAR_BLOCK];
    block.copy_from_slice(&data[from..from + TAR_BLOCK]);
    data.copy_within(to..size, to + TAR_BLOCK);
    data[to..to + TAR_BLOCK].copy_from_slice(&block);
    size + TAR_BLOCK
}

/// Puts right the checksum of every header that a reader comes to.
fn repair_headers(archive: &mut [u8]) {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + TAR_BLOCK) {
        if header.iter().any(|&byte| byte != 0) {
            header[CHECKSUM].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        // Links, directories and devices have no data, whatever they say.
        let stored = if matches!(header[156], b'1'..=b'6') { 0 } else { octal(&header[124..136]) };
        at = stored.next_multiple_of(TAR_BLOCK).saturating_add(at + TAR_BLOCK);
    }
}

/// A number as headers have it. One that is none, or is too large for an input, is 0.
fn octal(field: &[u8]) -> usize {
    let text = std::str::from_utf8(field).unwrap_or_default();
    let digits = text.trim_matches(['\0', ' ']);
    usize::from_str_radix(digits, 8).ok().filter(|&number| number < 1 << 30).unwrap_or(0)
}

/// Changes an EROFS image of `size` bytes that lies in `data`. Gives its new size.
pub fn erofs(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(seed.into());
    let mut size = size;
    if random.below(2) == 0 || size < 2 * EROFS_BLOCK {
        size = fuzzer_mutate(data, size, max_size);
    } else {
        for _ in 0..=random.below(4) {
            change_word(&mut data[..size], &mut random);
        }
    }
    if random.below(20) > 0 && size.next_multiple_of(EROFS_BLOCK) <= max_size {
        let end = size.next_multiple_of(EROFS_BLOCK);
        data[size..end].fill(0);
        size = end;
    }
    if random.below(20) > 0 {
        repair_superblock(&mut data[..size]);
    }
    size
}

/// Overwrites a number in the superblock, or in the blocks from the first inode on.
fn change_word(image: &mut [u8], random: &mut Random) {
    const SUPERBLOCK: usize = 1024;
    let meta_start = number(&image[SUPERBLOCK + 0x28..]).saturating_mul(EROFS_BLOCK);
    let (start, end) = match random.below(8) {
        0 => (SUPERBLOCK, SUPERBLOCK + 128),
        _ if meta_start < image.len() => (meta_start, image.len()),
        _ => (EROFS_BLOCK, image.len()),
    };
    // Inodes are few and stand at the beginning, mostly.
    let span = if random.below(2) == 0 { (end - start).min(1024) } else { end - start };
    let width = [1, 2, 4, 8][random.below(4)];
    if span < width {
        return;
    }
    let at = start + random.below(span / width) * width;
    let value = match random.below(4) {
        0 => u64::MAX,
        1 => 1 << random.below(64),
        2 => random.next(),
        _ => random.below(128) as u64,
    };
    image[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}

/// Lets the superblock say how many blocks there are, and puts its checksum right.
fn repair_superblock(image: &mut [u8]) {
    const BLOCKS: usize = 1024 + 0x24;
    let blocks = (image.len() / EROFS_BLOCK) as u32;
    let Some(first) = image.first_chunk_mut::<EROFS_BLOCK>() else { return };
    first[BLOCKS..BLOCKS + 4].copy_from_slice(&blocks.to_le_bytes());
    if let Err(FormatError::Checksum { found, .. }) = Superblock::parse(first) {
        first[1028..1032].copy_from_slice(&found.to_le_bytes());
    }
}

/// A number of 32 bits at the beginning of some bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// SplitMix64: what libFuzzer gives is a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
