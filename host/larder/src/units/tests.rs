use super::*;

/// The table that the guest SDK is held to as well.
const CASES: &str = include_str!("../../../../tests/fixtures/quantities.txt");

/// Every case of the table holds: what each text amounts to, and what is refused with what was expected.
#[test]
fn cases() {
    let cases = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in cases {
        let (kind, rest) = line.split_once(" `").expect(line);
        let (text, expected) = rest.rsplit_once("` ").expect(line);
        let (read, is_what) = match kind {
            "age" => (parse_duration(text).map(|age| age.as_secs()), A_DURATION),
            "size" => (text.parse().map(ByteSize::as_bytes), A_SIZE),
            "share" => (text.parse::<Share>().map(|share| share.of(1_000_000)), A_SHARE),
            _ => panic!("{line}"),
        };
        match expected {
            "refused" => {
                let error = read.expect_err(line).to_string();
                assert!(error.starts_with(&format!("`{text}` is not {is_what}")), "{error}");
            }
            number => assert_eq!(read, Ok(number.parse().expect(line)), "{line}"),
        }
    }
    assert!(CASES.lines().count() > 60);
}

/// A size is printed so that it parses back to the same value, and for people with one digit.
#[test]
fn sizes() {
    for (text, printed) in [
        ("0", "0B"),
        ("512B", "512B"),
        ("64MiB", "64MiB"),
        ("1.5GiB", "1536MiB"),
        ("20GB", "19531250KiB"),
        ("1024KiB", "1MiB"),
        ("2048TiB", "2PiB"),
    ] {
        let size: ByteSize = text.parse().expect(text);
        assert_eq!(size.to_string(), printed);
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    assert_eq!(format!("{:#}", ByteSize::bytes(1_610_612_736)), "1.5 GiB");
    assert_eq!(serde_json::from_str::<ByteSize>("1024").expect("a size"), ByteSize::kib(1));
    assert!(serde_json::from_str::<ByteSize>("-1").is_err());
}

/// A share is printed as it is written, and the result of `of` is rounded down.
#[test]
fn shares() {
    for (text, whole, part) in
        [("25%", 41, 10), ("12.5%", 1000, 125), ("0.0001%", 999_999, 0), ("100%", 7, 7)]
    {
        let share: Share = text.parse().expect(text);
        assert_eq!((share.of(whole), share.to_string().as_str()), (part, text));
    }
    assert_eq!(Share::percent(100).of(u64::MAX), u64::MAX);
}

/// A duration is printed so that it parses back to the same value, and has units below a second.
#[test]
fn durations() {
    for (text, printed) in [("0s", "0s"), ("1h30m", "1h30m"), ("1w", "7d"), ("500ms", "500ms")] {
        assert_eq!(format_duration(parse_duration(text).expect(text)), printed);
    }
    let odd = Duration::new(90_061, 1_002_003);
    assert_eq!(format_duration(odd), "1d1h1m1s1ms2us3ns");
    assert_eq!(parse_duration(&format_duration(odd)), Ok(odd));
}

/// A text that is written wrongly is refused with what was probably meant, which is read, where that is clear.
#[test]
fn suggestions() {
    let suggested = |error: Option<UnitError>| error.expect("an error").meant;
    let table = [
        ("size", "20gib", "20GiB"),
        ("size", "20 GiB", "20GiB"),
        ("size", "20G", "20GiB"),
        ("size", "20Mb", "20MB"),
        ("size", "1,5GB", "1.5GB"),
        ("size", ".5 gigabytes", "0.5GB"),
        ("size", "1_000 kb", "1000kB"),
        ("size", "twenty", ""),
        ("size", "1,000MB", ""),
        ("size", "-1MB", ""),
        ("size", "99999PiB", ""),
        ("duration", "7 days", "7d"),
        ("duration", "1.5h", "1h30m"),
        ("duration", "1D", "1d"),
        ("duration", "2 weeks", "14d"),
        ("duration", "1 hour and 30 minutes", "1h30m"),
        ("duration", "1h2w", "14d1h"),
        ("duration", "1y", "365d"),
        ("duration", "30", ""),
        ("duration", "30M", ""),
        ("duration", "-1d", ""),
        ("duration", "99999999999999999999d", ""),
        ("share", "50", "50%"),
        ("share", "0.25", "25%"),
        ("share", "25 %", "25%"),
        ("share", "12,5 percent", "12.5%"),
        ("share", "101%", ""),
        ("share", "half", ""),
    ];
    for (kind, text, expected) in table {
        let meant = match kind {
            "size" => suggested(text.parse::<ByteSize>().err()),
            "duration" => suggested(parse_duration(text).err()),
            _ => suggested(text.parse::<Share>().err()),
        };
        assert_eq!(meant.unwrap_or_default(), expected, "{kind} {text}");
    }
    let error = "20gib".parse::<ByteSize>().expect_err("refused").to_string();
    assert!(error.ends_with("; did you mean `20GiB`?"), "{error}");
}

/// A number in the place of a text is refused with the text that was probably meant.
#[test]
fn numbers_in_the_place_of_texts() {
    #[derive(Debug, Deserialize)]
    struct Document {
        #[serde(rename = "share")]
        _share: Share,
    }
    let refused = |text: &str| toml::from_str::<Document>(text).expect_err("refused").message().to_owned();
    assert_eq!(
        refused("share = 50"),
        "the number `50` is not a share from `0%` to `100%`, such as `25%` or `12.5%`; did you mean `\"50%\"`?"
    );
    assert!(refused("share = 0.25").ends_with("; did you mean `\"25%\"`?"));
    assert!(!refused("share = -1").contains("did you mean"));
}
