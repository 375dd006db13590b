//! The configuration as tables: what each layer makes of the defaults, and every way of being wrong with its place.
//! Numbers in comments are the rows of the catalogue of configuration failures (reliability notes, 4.3).

use finflow_config::{Config, DEFAULTS, PRODUCTION, Problems};

fn load(file: &str, variables: &[(&str, &str)], settings: &[&str]) -> Result<Config, Problems> {
    Config::load(
        &[("f.toml".to_owned(), file.to_owned())],
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        &settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>(),
    )
}

fn file_says(file: &str, expected: &[&str]) {
    says(load(file, &[], &[]), expected, file);
}

fn says(loaded: Result<Config, Problems>, expected: &[&str], what: &str) {
    let said = loaded.err().map(|problems| problems.to_string()).unwrap_or_default();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{what}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = Config::load(&[], [], &[]).expect("the defaults");
    assert_eq!(config.to_toml().parse::<toml::Table>().expect("toml"), DEFAULTS.parse::<toml::Table>().expect("toml"));

    // Every key is explained in the line above it.
    let lines = DEFAULTS.lines().collect::<Vec<_>>();
    for pair in lines.windows(2) {
        assert!(!pair[1].contains(" = ") || pair[1].starts_with('#') || pair[0].starts_with('#'), "unexplained: {}", pair[1]);
    }
}

#[test]
fn production_is_strict() {
    let config = load(PRODUCTION, &[], &[]).expect("the profile");
    assert!(!config.treasury.enabled);
    assert_eq!(config.topics.replication_factor, 3);
    assert_eq!(config.log.format, finflow_config::LogFormat::Json);
}

#[test]
fn later_layers_override() {
    let partitions = |file, variables: &[(&str, &str)], settings: &[&str]| {
        load(file, variables, settings).map(|config| config.topics.partitions).map_err(|problems| problems.to_string())
    };
    let (file, variable) = ("topics.partitions = 2", ("FINFLOW__TOPICS__PARTITIONS", "3"));
    assert_eq!(partitions("", &[], &[]), Ok(8)); // 4
    assert_eq!(partitions(file, &[], &[]), Ok(2));
    assert_eq!(partitions(file, &[variable], &[]), Ok(3));
    assert_eq!(partitions(file, &[variable], &["topics.partitions=4"]), Ok(4));
    assert_eq!(partitions(file, &[variable], &["topics.partitions=4", "topics.partitions=5"]), Ok(5));
    assert_eq!(partitions("", &[("PATH", "/bin"), ("FINFLOW_LANES", "x"), ("FINFLOW", "")], &[]), Ok(8));

    let named = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [named("a.toml", "lanes = 2\ntopics.partitions = 2"), named("b.toml", "[topics]\npartitions = 4")];
    let config = Config::load(&files, [], &[]).expect("two files");
    assert_eq!((config.lanes, config.topics.partitions), (2, 4));
}

#[test]
fn what_is_shown_is_read_back() {
    let rows = [
        "epoch.interval=1ns",
        "epoch.interval=1500us",
        "epoch.interval=90s",
        "dedup.retention=1000d",
        "dedup.margin=36h",
        "dedup.sweep_interval=2h",
        "transfers.attention_after=5m",
        "topics.retention=off",
        "topics.retention=0",
        "topics.retention=36h",
        "snapshots.url=file:///mnt/other disk",
        "snapshots.url=s3://payments/finflow",
        "snapshots.region=eu-west-1",
        "snapshots.endpoint=http://127.0.0.1:9000",
        "snapshots.interval=30s",
        "snapshots.trim_interval=12h",
        "topics.dlq_retention=off",
        "topics.dlq_retention=90d",
        "internal.listen=127.0.0.1:9465",
        "internal.advertise=finflow-1.internal:9465",
        "store.memory=1B",
        "store.memory=3GiB",
        "store.memory=1025KiB",
        "treasury.enabled=false",
        "log.format=json",
        "admin.listen=[::1]:0",
        "topics.prefix=a_b.c-1",
        "node.id=7",
        "store.hot_wallets=100000000",
        "lanes=8",
        "topics.replication_factor=3",
        "kafka.bootstrap.servers=a:1",
        "kafka.\"client.id\"=a \"b\"",
        "kafka.trim.\"client.id\"=a",
    ];
    for row in rows {
        let config = load("", &[], &[row]).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config.clone()), "{row}");
        assert_ne!(Ok(config), load("", &[], &[]), "{row} changes something");
    }
}

#[test]
fn syntax_is_told_without_the_value() {
    // 6, 8
    for (file, place) in [
        ("lanes = \n", "f.toml:1:"),
        ("\n[node]\nid = \"s3cret", "f.toml:3:"),
        ("[topics\n", "f.toml:1:"),
        ("lanes", "f.toml:1:"),
    ] {
        let said = load(file, &[], &[]).expect_err(file).to_string();
        assert!(said.starts_with(place) && !said.contains("s3cret"), "{file}: {said}");
    }
    file_says("lanes = 1\nlanes = 2", &["f.toml:2:1: duplicate key"]);
    file_says("[topics]\npartitions = 2\n[topics]\nprefix = \"a\"", &["f.toml:3:2: duplicate key"]);
    file_says("topics.partitions = 2\n[topics]\npartitions = 2", &["f.toml:2:2: duplicate key", "f.toml:3:1: duplicate key"]);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    // 7
    file_says("[topics]\npartitons = 1", &["f.toml:2:1: unknown key `topics.partitons`; did you mean `topics.partitions`?"]);
    file_says("[topic]\npartitions = 1", &["f.toml:2:1: unknown key `topic.partitions`; did you mean `topics.partitions`?"]);
    file_says("partitions = 1", &["f.toml:1:1: unknown key `partitions`; did you mean `topics.partitions`?"]);
    file_says(
        "\"topics.partitions\" = 1",
        &["f.toml:1:1: unknown key `\"topics.partitions\"`; did you mean `topics.partitions`?"],
    );
    file_says("\"é\" = 1\nweather = \"fine\"", &["f.toml:1:1: unknown key `\"é\"`", "f.toml:2:1: unknown key `weather`"]);
    file_says("snapshots.dir = \"/mnt\"", &["f.toml:1:11: unknown key `snapshots.dir`; did you mean `snapshots.url`?"]);
    file_says("[weather]", &["f.toml:1:2: unknown key `weather`"]);
    file_says("topics = 8", &["f.toml:1:10: `topics` must be a section, `[topics]`"]);
    file_says("[[topics]]\npartitions = 8", &["f.toml:1:1: `topics` must be a section, `[topics]`"]);
}

const PARTITIONS: &str = "`topics.partitions` must be a whole number from 1 to 4096";
const NAME: &str = "must be 1 to 200 letters, digits, `.`, `_` or `-`, with a letter or digit at both ends";
const ADDRESS: &str = "`admin.listen` must be an IP address and a port, as in \"127.0.0.1:9464\"";
const URL: &str =
    "`snapshots.url` must be \"file:///directory\" or \"s3://bucket/prefix\", as in \"s3://payments-snapshots/finflow\"";
const ENDPOINT: &str = "`snapshots.endpoint` must be a URL without a password, as in \"https://s3.internal:9000\"";
const TIME: &str = "d, h, m, s, ms, us, ns";
const SIZE: &str = "TiB, GiB, MiB, KiB, B";

#[test]
fn wrong_values_are_refused() {
    let time = |flaw: &str| format!("`epoch.interval` {flaw}");
    let no_time = time(&format!("must be a whole number with a unit ({TIME}): a string such as \"15ms\""));
    let unknown_time =
        time(&format!("has an unknown unit; a whole number with one of {TIME} is needed: a string such as \"15ms\""));
    let no_size = format!("`store.memory` has no unit; a whole number with one of {SIZE} is needed: a string such as \"64MiB\"");
    let number_of_bytes = format!("`store.memory` must be a number with a unit ({SIZE}): a string such as \"64MiB\"");
    let rows: Vec<(&str, &str, String)> = vec![
        // 9
        ("topics.partitions", "\"8\"", PARTITIONS.to_owned()),
        ("topics.partitions", "8.0", PARTITIONS.to_owned()),
        ("topics.partitions", "[8]", PARTITIONS.to_owned()),
        ("topics.partitions", "{ a = 8 }", PARTITIONS.to_owned()),
        ("treasury.enabled", "\"true\"", "`treasury.enabled` must be true or false".to_owned()),
        ("treasury.enabled", "1", "`treasury.enabled` must be true or false".to_owned()),
        ("topics.prefix", "7", format!("`topics.prefix` {NAME}")),
        ("log.format", "\"JSON\"", "`log.format` must be \"human\" or \"json\"".to_owned()),
        ("store.memory", "192", number_of_bytes),
        // 10, 11, 45
        ("topics.partitions", "0", PARTITIONS.to_owned()),
        ("topics.partitions", "-8", PARTITIONS.to_owned()),
        ("topics.partitions", "4097", PARTITIONS.to_owned()),
        ("store.hot_wallets", "0", "`store.hot_wallets` must be a whole number from 1 to 100000000".to_owned()),
        ("lanes", "0", "`lanes` must be a whole number from 1 to 4096".to_owned()),
        ("epoch.interval", "\"-2ms\"", time("must not be negative")),
        ("epoch.interval", "\"0ms\"", time("must be more than zero")),
        ("store.memory", "\"0MiB\"", "`store.memory` must be more than zero".to_owned()),
        // 12
        ("topics.partitions", "9223372036854775807", PARTITIONS.to_owned()),
        ("topics.partitions", "9223372036854775808", "`topics.partitions` is too large".to_owned()),
        ("topics.partitions", "4294967304", PARTITIONS.to_owned()),
        ("topics.partitions", "1e400", "`topics.partitions` is too large".to_owned()),
        ("topics.partitions", "nan", PARTITIONS.to_owned()),
        ("epoch.interval", "\"99999999999999999999ns\"", time("is too large")),
        ("dedup.retention", "\"213504d\"", "`dedup.retention` is too large".to_owned()),
        ("store.memory", "\"16777216TiB\"", "`store.memory` is too large".to_owned()),
        // 13
        ("store.memory", "\"192\"", no_size),
        ("epoch.interval", "\"2 ms\"", unknown_time.clone()),
        ("epoch.interval", "\"2MS\"", unknown_time.clone()),
        ("epoch.interval", "\"1.5s\"", unknown_time.clone()),
        ("epoch.interval", "\"1h30m\"", unknown_time),
        ("epoch.interval", "\"ms\"", no_time.clone()),
        ("epoch.interval", "\"\"", no_time.clone()),
        ("epoch.interval", "\"+2ms\"", no_time),
        ("topics.retention", "\"-2ms\"", "`topics.retention` must not be negative".to_owned()),
        ("topics.retention", "\"0d\"", "`topics.retention` must be more than zero".to_owned()),
        ("snapshots.url", "7", URL.to_owned()),
        ("snapshots.url", "\"/mnt/other\"", URL.to_owned()),
        ("snapshots.url", "\"s3://key:secret@payments\"", URL.to_owned()),
        ("snapshots.endpoint", "\"key:secret@s3\"", ENDPOINT.to_owned()),
        // 37 and the forms of names
        ("admin.listen", "\"9464\"", ADDRESS.to_owned()),
        ("admin.listen", "\"127.0.0.1\"", ADDRESS.to_owned()),
        ("admin.listen", "\"127.0.0.1:65536\"", ADDRESS.to_owned()),
        ("admin.listen", "\"http://127.0.0.1:9464\"", ADDRESS.to_owned()),
        ("topics.prefix", "\"\"", format!("`topics.prefix` {NAME}")),
        ("topics.prefix", "\"a b\"", format!("`topics.prefix` {NAME}")),
        ("topics.prefix", "\"a/b\"", format!("`topics.prefix` {NAME}")),
        ("topics.prefix", "\"a.\"", format!("`topics.prefix` {NAME}")),
        ("topics.prefix", "\"größe\"", format!("`topics.prefix` {NAME}")),
        ("node.id", "\"..\"", format!("`node.id` {NAME}")),
    ];
    for (key, value, expected) in rows {
        let column = key.len() + 4;
        file_says(&format!("{key} = {value}"), &[&format!("f.toml:1:{column}: {expected}")]);
    }
    assert!(load(&format!("topics.prefix = \"{}\"", "a".repeat(200)), &[], &[]).is_ok());
    file_says(&format!("topics.prefix = \"{}\"", "a".repeat(201)), &[&format!("f.toml:1:17: `topics.prefix` {NAME}")]);
}

#[test]
fn variables_and_settings_are_refused_by_name() {
    // 42
    let rows = [
        ("FINFLOW__LANES", "", "`lanes` must not be empty"),
        ("FINFLOW__NODE__ID", "a\n", "`node.id` must be one line without control characters"),
        ("FINFLOW__TOPICS__PARTITIONS", "eight", PARTITIONS),
        ("FINFLOW__TOPICS__PARTITIONS", "9223372036854775808", PARTITIONS),
        ("FINFLOW__TOPICS__PARTITIONS", " 8", PARTITIONS),
        ("FINFLOW__TREASURY__ENABLED", "yes", "`treasury.enabled` must be true or false"),
        ("FINFLOW__TOPICS__PARTITON", "8", "unknown key `topics.partiton`; did you mean `FINFLOW__TOPICS__PARTITIONS`?"),
        ("FINFLOW__lanes", "8", "unknown key `lanes`; did you mean `FINFLOW__LANES`?"),
        ("FINFLOW__", "8", "unknown key ``"),
    ];
    for (name, value, expected) in rows {
        says(load("", &[(name, value)], &[]), &[&format!("variable {name}: {expected}")], name);
    }
    let rows = [
        ("lanes", "--set lanes: must have the form section.key=value"),
        ("lanes=", "--set lanes: `lanes` must not be empty"),
        ("=1", "--set : unknown key ``"),
        ("lane=1", "--set lane: unknown key `lane`; did you mean `lanes`?"),
        ("topics=1", "--set topics: unknown key `topics`"),
        (
            "epoch.interval=\"2ms\"",
            "--set epoch.interval: `epoch.interval` must be a whole number with a unit (d, h, m, s, ms, us, ns): a string such as \"15ms\"",
        ),
    ];
    for (setting, expected) in rows {
        says(load("", &[], &[setting]), &[expected], setting);
    }
}

#[test]
fn a_secret_is_never_shown() {
    let of_bucket = ["snapshots.access_key_id=AKIA", "snapshots.secret_access_key=CANARY"];
    let config = load("", &[], &of_bucket).unwrap_or_else(|problems| panic!("{problems}"));
    let shown = format!("{config:?} {}", config.to_toml());
    assert!(!shown.contains("CANARY") && shown.contains("AKIA"), "{shown}");
    assert!(finflow_config::holds_secret("[snapshots]\nsecret_access_key = \"x\""));
    assert!(!finflow_config::holds_secret("[snapshots]\naccess_key_id = \"x\""));
    let config = load("", &[], &["internal.secret=of all processes"]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.internal.secret, "of all processes");
    assert!(!format!("{config:?} {}", config.to_toml()).contains("of all processes"));
    let rule = "`internal.secret` must be a string, and the secret itself: what is shown of a configuration hides it";
    file_says("internal.secret = \"(hidden)\"", &[&format!("f.toml:1:19: {rule}")]);
    file_says("internal.secret = 7", &[&format!("f.toml:1:19: {rule}")]);
}

#[test]
fn keys_must_fit_each_other() {
    // 15, 22
    file_says("lanes = 9", &["f.toml:1:9: `lanes` must be at most `topics.partitions`, which is 8"]);
    file_says("lanes = 2\ntopics.partitions = 1", &["f.toml:2:21: `lanes` must be at most `topics.partitions`, which is 1"]);
    file_says("dedup.retention = \"1h\"", &["f.toml:1:19: `dedup.retention` must be more than `dedup.margin`"]);
    file_says("dedup.margin = \"35d\"", &["f.toml:1:16: `dedup.retention` must be more than `dedup.margin`"]);
    file_says("lanes = 8\ndedup.retention = \"61m\"", &[]);
    let secret = "`internal.secret` must be set where `internal.listen` is not a loopback address";
    file_says("internal.listen = \"10.0.0.7:9465\"", &[&format!("f.toml:1:19: {secret}")]);
    let listen = "internal.listen = \"0.0.0.0:9465\"\ninternal.secret = \"s\"";
    file_says(listen, &["f.toml:1:19: `internal.advertise` must be set where `internal.listen` is every address"]);
    file_says(&format!("{listen}\ninternal.advertise = \"finflow-1:9465\""), &[]);
    let shared = "`snapshots.url` must be set where `snapshots.shared` is true";
    file_says("snapshots.shared = true", &[&format!("f.toml:1:20: {shared}")]);
    file_says("snapshots.shared = true\nsnapshots.url = \"\"", &[&format!("f.toml:2:17: {shared}")]);
    file_says("snapshots.shared = true\nsnapshots.url = \"file:///mnt/snapshots\"", &[]);
    for (set, unset) in [("access_key_id", "secret_access_key"), ("secret_access_key", "access_key_id")] {
        let expected = format!("`snapshots.{unset}` must be set where `snapshots.{set}` is");
        says(load("", &[], &[&format!("snapshots.{set}=x")]), &[&format!("--set snapshots.{set}: {expected}")], set);
    }
    // A refused key is no ground for a second problem.
    file_says("lanes = 9\ntopics.partitions = 0", &[&format!("f.toml:2:21: {PARTITIONS}")]);
    let loaded = load("lanes = 4", &[], &["topics.partitions=2"]);
    says(loaded, &["--set topics.partitions: `lanes` must be at most `topics.partitions`, which is 2"], "across layers");
}

#[test]
fn all_problems_are_listed_at_once() {
    let file = "lane = 2\n[topics]\npartitions = 0\nprefix = \"\"\n[store]\nmemory = \"1\"\n[dedup]\nmargin = \"40d\"";
    let loaded = load(file, &[("FINFLOW__LANES", "0"), ("FINFLOW__NODE__ID", "")], &["log.format=xml", "topics.partitions=4"]);
    let expected = [
        "f.toml:1:1: unknown key `lane`; did you mean `lanes`?",
        &format!("f.toml:3:14: {PARTITIONS}"),
        &format!("f.toml:4:10: `topics.prefix` {NAME}"),
        &format!(
            "f.toml:6:10: `store.memory` has no unit; a whole number with one of {SIZE} is needed: a string such as \"64MiB\""
        ),
        "variable FINFLOW__LANES: `lanes` must be a whole number from 1 to 4096",
        "variable FINFLOW__NODE__ID: `node.id` must not be empty",
        "--set log.format: `log.format` must be \"human\" or \"json\"",
        "f.toml:8:10: `dedup.retention` must be more than `dedup.margin`",
    ];
    says(loaded, &expected, file);
}

#[test]
fn properties_of_the_client_library_have_their_own_names() {
    let quoted =
        "[kafka]\n\"bootstrap.servers\" = \"a:1,b:2\"\n\"security.protocol\" = \"ssl\"\n[kafka.trim]\n\"linger.ms\" = 5\n";
    let bare = "[kafka]\nbootstrap.servers = \"a:1,b:2\"\nsecurity.protocol = \"ssl\"\ntrim.linger.ms = \"5\"\n";
    let variables = [
        ("FINFLOW__KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2"),
        ("FINFLOW__KAFKA__SECURITY_PROTOCOL", "ssl"),
        ("FINFLOW__KAFKA__TRIM__LINGER_MS", "5"),
    ];
    let doubled = [
        ("FINFLOW__KAFKA__BOOTSTRAP__SERVERS", "a:1,b:2"),
        ("FINFLOW__KAFKA__SECURITY__PROTOCOL", "ssl"),
        ("FINFLOW__KAFKA__TRIM__LINGER__MS", "5"),
    ];
    let settings = ["kafka.\"bootstrap.servers\"=a:1,b:2", "kafka.'security.protocol'=ssl", "kafka.trim.\"linger.ms\"=5"];
    let bare_settings = ["kafka.bootstrap.servers=a:1,b:2", "kafka.security.protocol=ssl", "kafka.trim.linger.ms=5"];
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let rows: [Row<'_>; 6] = [
        (quoted, &[], &[]),
        (bare, &[], &[]),
        ("", &variables, &[]),
        ("", &doubled, &[]),
        ("", &[], &settings),
        ("", &[], &bare_settings),
    ];
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    for (file, variables, settings) in rows {
        let kafka = load(file, variables, settings).expect("all ways are one").kafka;
        assert_eq!(kafka.brokers, "a:1,b:2");
        assert_eq!((kafka.properties, kafka.trim), (pair("security.protocol", "ssl"), pair("linger.ms", "5")));
    }
    // Later layers override one by one, whichever way they write it.
    let file = "[kafka]\n\"client.id\" = \"file\"\n\"linger.ms\" = 1\n\"enable.ssl.certificate.verification\" = false";
    let variables = [("FINFLOW__KAFKA__CLIENT_ID", "variable"), ("FINFLOW__KAFKA__LINGER_MS", "2")];
    let kafka = load(file, &variables, &["kafka.client.id=a=b"]).expect("layers").kafka;
    let found: Vec<_> = kafka.each().map(|(key, _, value)| format!("{key}={value}")).collect();
    let expected = ["kafka.client.id=a=b", "kafka.enable.ssl.certificate.verification=false", "kafka.linger.ms=2"];
    assert_eq!(found, expected);
}

#[test]
fn properties_of_the_client_library_are_refused_in_their_place() {
    let brokers = "`kafka.\"bootstrap.servers\"` must be host:port, several with commas, as in \"kafka-1:9092,kafka-2:9092\"";
    let rule =
        "must be a string, a whole number, true or false, and the value itself: what is shown of a configuration hides secrets";
    let rows = [
        ("[kafka]\n\"bootstrap.servers\" = \"a\"", format!("f.toml:2:23: {brokers}")),
        ("[kafka]\n\"bootstrap.servers\" = [\"a:1\"]", format!("f.toml:2:23: {brokers}")),
        ("[kafka]\n\"client.id\" = [1]", format!("f.toml:2:15: `kafka.\"client.id\"` {rule}")),
        ("[kafka.trim]\n\"linger.ms\" = 0.5", format!("f.toml:2:15: `kafka.trim.\"linger.ms\"` {rule}")),
        ("[kafka]\n\"sasl.password\" = \"(hidden)\"", format!("f.toml:2:19: `kafka.\"sasl.password\"` {rule}")),
        ("kafka.trim = 1", "f.toml:1:14: `kafka.trim` must be a section, `[kafka.trim]`".to_owned()),
        ("kafka = 1", "f.toml:1:9: `kafka` must be a section, `[kafka]`".to_owned()),
        ("[kafka]\n\"a b\" = 1", "f.toml:2:1: unknown key `kafka.a b`".to_owned()),
        ("[kafka]\n\"client.id\" = 1\nclient.id = 2", "f.toml:3:13: `kafka.\"client.id\"` is set twice".to_owned()),
    ];
    for (file, expected) in rows {
        file_says(file, &[&expected]);
    }
    let variables = [
        ("FINFLOW__KAFKA__BOOTSTRAP_SERVERS", "a", brokers),
        ("FINFLOW__KAFKA__CLIENT_ID", "", "`kafka.\"client.id\"` must not be empty"),
        ("FINFLOW__KAFKA__TRIM", "a", "unknown key `kafka.trim`"),
        ("FINFLOW__KAFKA__client_id", "a", "unknown key `kafka.client_id`"),
        ("FINFLOW__KAFKA__", "a", "unknown key `kafka.`"),
    ];
    for (name, value, expected) in variables {
        says(load("", &[(name, value)], &[]), &[&format!("variable {name}: {expected}")], name);
    }
    for (setting, expected) in [
        ("kafka.\"bootstrap.servers\"=a", format!("--set kafka.\"bootstrap.servers\": {brokers}")),
        ("kafka.=a", "--set kafka.: unknown key `kafka.`".to_owned()),
        ("kafka.trim=a", "--set kafka.trim: unknown key `kafka.trim`".to_owned()),
        ("kafka.client..rack=a", "--set kafka.client..rack: unknown key `kafka.client..rack`".to_owned()),
    ] {
        says(load("", &[], &[setting]), &[&expected], setting);
    }
    // The rules of who knows the client library are told in the place where the property was set last.
    let rules = |config: &Config| config.kafka.each().map(|(key, name, _)| (key, format!("is {name}"))).collect();
    let files = [("f.toml".to_owned(), "[kafka]\n\"linger.ms\" = 1\nacks = 1\n[kafka.trim]\nacks = 0".to_owned())];
    let loaded = Config::load_with(&files, [], &["kafka.linger.ms=2".to_owned()], rules);
    let expected = [
        "f.toml:3:8: `kafka.acks` is acks",
        "--set kafka.linger.ms: `kafka.\"linger.ms\"` is linger.ms",
        "f.toml:5:8: `kafka.trim.acks` is acks",
    ];
    says(loaded, &expected, "rules");
}

#[test]
fn what_is_shown_hides_secrets() {
    let rows = [
        ("security.protocol", "sasl_ssl", false),
        ("sasl.username", "finflow", false),
        ("sasl.password", "CANARY", true),
        ("ssl.key.password", "CANARY=", true),
        ("ssl.keystore.password", "CANARY", true),
        ("ssl.key.pem", "CANARY", true),
        ("SASL.OAUTHBEARER.CLIENT.SECRET", "CANARY", true),
        ("sasl.oauthbearer.config", "CANARY", true),
        ("ssl.ca.location", "ca.pem", false),
    ];
    let properties: String = rows.iter().map(|(name, value, _)| format!("\"{name}\" = \"{value}\"\n")).collect();
    for (section, key) in [("[kafka]", "kafka."), ("[kafka.trim]", "kafka.trim.")] {
        let file = format!("{section}\n{properties}");
        assert!(finflow_config::holds_secret(&file), "{file}");
        let config = load(&file, &[], &[]).expect(section);
        let shown = config.to_toml();
        assert!(!shown.contains("CANARY") && !format!("{config:?}").contains("CANARY"), "{shown}");
        for (name, value, is_secret) in rows {
            let name = if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() };
            let line = format!("{name} = \"{}\"", if is_secret { "(hidden)" } else { value });
            assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
        }
        let again = load(&shown, &[], &[]).expect_err("a secret that was hidden is no secret").to_string();
        assert!(again.contains(&format!("`{key}\"sasl.password\"` must be")) && again.contains("the value itself"), "{again}");
    }
    for (file, expected) in [
        ("[kafka]\nsasl.password = \"s\"", true),
        ("kafka.ssl.key.pem = \"s\"", true),
        ("[kafka]\n\"sasl.password\" = \"\"", false),
        ("[kafka]\n\"sasl.username\" = \"s\"", false),
    ] {
        assert_eq!(finflow_config::holds_secret(file), expected, "{file}");
    }
}
