//! Random trees and layers. Few names and shallow paths, so that entries meet each other.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use larder_erofs::{DeviceNumber, EntryPath, Metadata, Name, Permissions, Timestamp, XattrName, Xattrs};

use super::{Item, Line};

/// Names as they occur, and such that sort around `.` and `..` or are as long as names can be.
pub(crate) fn name() -> impl Strategy<Value = Name> {
    let few = select(vec![&b"a"[..], b"b", b"c", b"!", b"-x", b"...", b"\xff\xfe", &[b'n'; 255]]);
    let any = vec(any::<u8>().prop_filter("a name", |byte| *byte != 0 && *byte != b'/'), 1..40);
    prop_oneof![6 => few.prop_map(<[u8]>::to_vec), 1 => any]
        .prop_filter_map("a name", |bytes| Name::parse(&bytes).ok())
}

pub(crate) fn path(name: impl Strategy<Value = Name>) -> impl Strategy<Value = EntryPath> {
    vec(name, 1..5)
        .prop_map(|names| names.iter().fold(EntryPath::root(), |path, name| path.join(name).unwrap()))
}

/// `trusted` only: the kernel shows others not on every kind of inode. What the name and the value are varies.
pub(crate) fn xattrs() -> impl Strategy<Value = Xattrs> {
    let value = prop_oneof![
        4 => select(vec![Vec::new(), b"y".to_vec(), vec![7; 100]]),
        1 => vec(any::<u8>(), 0..5000),
    ];
    vec((select(vec!["trusted.a", "trusted.longer.name", "security.b", "trusted.c"]), value), 0..4).prop_map(
        |entries| {
            let mut xattrs = Xattrs::new();
            for (name, value) in entries {
                xattrs.set(XattrName::parse(name.as_bytes()).unwrap(), &value).unwrap();
            }
            xattrs
        },
    )
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    let id = || prop_oneof![Just(0), Just(1000), Just(65535), Just(65536), Just(u32::MAX - 1)];
    let time = prop_oneof![
        3 => Just((1_700_000_000, 0)),
        1 => (-5_000_000_000i64..50_000_000_000, 0u32..1_000_000_000),
    ];
    (0u32..0o10000, id(), id(), time, xattrs()).prop_map(
        |(mode, uid, gid, (seconds, nanoseconds), xattrs)| Metadata {
            permissions: Permissions::from_mode(mode),
            uid,
            gid,
            mtime: Timestamp::new(seconds, nanoseconds).unwrap(),
            xattrs,
        },
    )
}

pub(crate) fn item(name: impl Strategy<Value = Name> + 'static) -> impl Strategy<Value = Item> {
    let number =
        (0u32..4096, 0u32..1 << 20).prop_map(|(major, minor)| DeviceNumber::new(major, minor).unwrap());
    let content = prop_oneof![Just(0usize), 1usize..100, Just(4095), Just(4096), Just(4097), 1usize..20_000,];
    let content = (content, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    });
    let target = prop_oneof![3 => 1usize..60, 1 => 3900usize..4096].prop_map(|length| vec![b't'; length]);
    prop_oneof![
        4 => Just(Item::Directory),
        6 => content.prop_map(Item::File),
        2 => target.prop_map(Item::Symlink),
        // Not 0/0, which would be a whiteout.
        1 => number.clone().prop_map(|number| match number {
            DeviceNumber::ZERO => Item::Fifo,
            number => Item::CharDevice(number),
        }),
        1 => number.prop_map(Item::BlockDevice),
        1 => Just(Item::Fifo),
        1 => Just(Item::Socket),
        3 => path(name).prop_map(Item::HardLink),
    ]
}

/// The lines of a tree, without whiteouts.
pub(crate) fn lines() -> impl Strategy<Value = Vec<Line>> {
    let line = (path(name()), metadata(), item(name())).prop_map(|(path, metadata, item)| Line {
        path,
        metadata,
        item,
    });
    vec(line, 0..40)
}

/// The lines of a layer, with whiteouts among them.
pub(crate) fn layer_lines() -> impl Strategy<Value = Vec<Line>> {
    let few = || select(vec!["a", "b", "c", "d"]).prop_map(|name| Name::parse(name.as_bytes()).unwrap());
    let last = prop_oneof![
        8 => few(),
        2 => select(vec![".wh.a", ".wh.b", ".wh.c", ".wh..wh..opq", ".wh..wh.plnk"])
            .prop_map(|name| Name::parse(name.as_bytes()).unwrap()),
    ];
    let path = (vec(few(), 0..3), last).prop_map(|(above, last)| {
        above.iter().chain([&last]).fold(EntryPath::root(), |path, name| path.join(name).unwrap())
    });
    let line =
        (path, metadata(), item(few())).prop_map(|(path, metadata, item)| Line { path, metadata, item });
    vec(line, 0..25)
}
