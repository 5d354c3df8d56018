//! Configs that conform, and those that do not.

use larder::policy::PolicyRun;
use larder::snapshot::MemoryCache;
use serde_json::json;

use crate::agreement::{REMOVE_ALL, agreed, grant, image, now};

/// Ages, sizes and shares, and what each amounts to.
const QUANTITIES: &str = include_str!("../../fixtures/quantities.txt");

/// Lengths of time are read and written the same, and what is none is refused with the same words.
#[test]
fn lengths_of_time() {
    let cache = MemoryCache::new([
        image("docker.io/acme/app:1", 400, Some(13)),
        image("docker.io/acme/app:2", 400, Some(12)),
        image("docker.io/acme/app:3", 399, None),
    ]);
    let decided = |within: &str| {
        let config = json!({"keep": 0, "used-within": within});
        agreed(&cache, &PolicyRun::new(now()).with_config(config).with_grant(grant(REMOVE_ALL)))
    };
    let ages = QUANTITIES.lines().filter_map(|line| line.strip_prefix("age `")?.rsplit_once("` "));
    let (refused, read): (Vec<_>, Vec<_>) = ages.partition(|&(_, expected)| expected == "refused");
    assert!(read.len() > 8 && refused.len() > 12);
    for within in read.into_iter().map(|(text, _)| text).chain(["12d", "1w5d23h59m59s", "30500568904943w"]) {
        decided(within).unwrap_or_else(|error| panic!("{within}: {error}"));
    }
    let long = "9".repeat(60) + "é";
    let odd = [
        "1d\u{1f4e6}",
        "1\u{0}d",
        "18446744073709551616s",
        "30500568904944w",
        "000000000000000000000000000000000000001x",
        "1w1w",
        "1s1",
        &long,
        "\"\\\n",
    ];
    for within in refused.into_iter().map(|(text, _)| text).chain(odd) {
        let error = decided(within).expect_err(within);
        assert!(error.contains("config of NAME: `used-within`: `"), "{error}");
    }
}

/// A config that does not conform is refused with the same words, which name the key.
#[test]
fn refused_configs() {
    let table = [
        (json!({"keep": 0}), "config of NAME: `keep` is 0 and `used-within` is not set"),
        (json!({"keep": 0, "used-within": null}), "config of NAME: `keep` is 0 and `used-within` is not set"),
        (json!({"kep": 2}), "config of NAME: unknown key `kep`: the keys are `keep` and `used-within`"),
        (json!({"keep": "x", "zzz": 1, "aaa": [{"a": [1, {}]}]}), "unknown key `aaa`"),
        (json!({"a\"\\\n\u{e9}\u{1f4e6}": 1}), "unknown key `a\"\\ é\u{1f4e6}`"),
        (json!({"keep": -1}), "config of NAME: `keep`: invalid value: integer `-1`, expected u32"),
        (json!({"keep": 4_294_967_296_u64}), "`keep`: invalid value: integer `4294967296`, expected u32"),
        (json!({"keep": 9_007_199_254_740_993_u64}), "integer `9007199254740993`"),
        (json!({"keep": u64::MAX}), "integer `18446744073709551615`"),
        (json!({"keep": i64::MIN}), "integer `-9223372036854775808`"),
        (json!({"keep": 2.0}), "`keep`: invalid type: floating point `2.0`, expected u32"),
        (json!({"keep": 1.5}), "floating point `1.5`"),
        (json!({"keep": true}), "`keep`: invalid type: boolean `true`, expected u32"),
        (json!({"keep": null}), "`keep`: invalid type: null, expected u32"),
        (json!({"keep": [1]}), "`keep`: invalid type: sequence, expected u32"),
        (json!({"keep": {"keep": 1}}), "`keep`: invalid type: map, expected u32"),
        (json!({"keep": "2"}), "`keep`: invalid type: string \"2\", expected u32"),
        (json!({"keep": "\"\\\n\t\r\u{0}\u{1b}\u{7f}é\u{1f4e6}'/"}), "`keep`: invalid type: string "),
        (json!({"keep": 2, "used-within": 7}), "`used-within`: invalid type: integer `7`, expected a string"),
        (
            json!({"keep": 2, "used-within": 0.25}),
            "`used-within`: invalid type: floating point `0.25`, expected",
        ),
        (json!({"used-within": false}), "`used-within`: invalid type: boolean `false`, expected a string"),
        (
            json!({"keep": 2, "used-within": {"keep": 1.5}}),
            "`used-within`: invalid type: map, expected a string",
        ),
        (json!({"used-within": ["1d"]}), "`used-within`: invalid type: sequence, expected a string"),
        (json!({"keep": "x", "used-within": 7}), "`keep`: invalid type: string \"x\", expected u32"),
    ];
    let cache = MemoryCache::new([image("docker.io/acme/app:1", 1, None)]);
    for (config, expected) in table {
        let error = agreed(&cache, &PolicyRun::new(now()).with_config(config)).expect_err("an error");
        assert!(error.contains(expected), "{error}");
    }
}
