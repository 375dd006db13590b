//! What is made of the looks at a group.

use super::*;

type Members<'a> = &'a [(&'a str, &'a [u32])];

/// The members that one look finds, by lane and partitions; each is called like its lane.
fn found(members: Members<'_>) -> Vec<Described> {
    let of = |(lane, partitions): &(&str, &[u32])| Described {
        member_id: format!("{lane}-1"),
        instance_id: (*lane).to_owned(),
        partitions: partitions.to_vec(),
    };
    members.iter().map(of).collect()
}

fn own(id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("own".to_owned(), id.to_owned())])
}

#[test]
fn a_lease_needs_to_be_seen_to_have_the_partition_and_not_to_have_stood_still() {
    let now = Instant::now();
    let old = now.checked_sub(LEASE).expect("a clock that has run for a while");
    // When the look began, whether the process ran before it, what this process is called, whom it found, what the member has and
    // has to give back, and whether it may answer for partition 0.
    type Row<'a> = (Instant, bool, &'a str, Members<'a>, &'a [u32], &'a [u32], bool);
    let rows: [Row<'_>; 9] = [
        (now, true, "own-1", &[("own", &[0])], &[0, 1], &[], true),
        (now, true, "own-2", &[("own", &[0])], &[0, 1], &[], false),
        (now, true, "own-1", &[("other", &[0])], &[0, 1], &[], false),
        (now, true, "own-1", &[], &[0, 1], &[], false),
        (now, false, "own-1", &[("own", &[0])], &[0, 1], &[], false),
        (old, true, "own-1", &[("own", &[0])], &[0, 1], &[], false),
        // The group waits for what it has asked for, and not for what the member has given up, whatever the last look has seen.
        (now, true, "own-1", &[("own", &[0])], &[0, 1], &[0], true),
        (now, true, "own-1", &[("own", &[0])], &[1], &[], false),
        (now, true, "own-1", &[("own", &[0])], &[], &[], false),
    ];
    for (begun, unbroken, id, members, assigned, revoked, expected) in rows {
        let view = Arc::<Mutex<View>>::default();
        lock(&view).take("b", &own(id), (begun, unbroken), Ok((true, found(members))));
        let names = Names::default();
        let (given, is_over) = (Mutex::default(), Arc::default());
        let group = Group { view, names: names.clone(), given, is_over, brokers: String::new() };
        let set = |ids: &[u32]| ids.iter().copied().collect();
        let (_, given) = watch::channel(Assignment { assigned: set(assigned), revoked: set(revoked), ..Assignment::default() });
        group.hold_to("own", given);
        assert!(!group.has_lease("own", 0), "the lane is no member");
        names.note("own", id.to_owned());
        assert_eq!(group.has_lease("own", 0), expected, "{unbroken} {id} {members:?} {assigned:?}");
        assert!(!group.has_lease("other", 0), "a lane of another process");
    }
}

#[test]
fn what_is_nobodys_is_dealt_out_anew_by_who_has_the_least() {
    let (begun, mut view) = (Instant::now(), View::default());
    let whole: Members<'_> = &[("a", &[0]), ("b", &[1, 2])];
    let broken: Members<'_> = &[("b", &[2]), ("a", &[]), ("c", &[])];
    // When it is looked at, whether the group has decided, who has what, and who has to come back.
    let rows: [(u64, bool, Members<'_>, Option<&str>); 9] = [
        (0, true, broken, None),
        (5_000, true, broken, None),
        (6_000, true, whole, None),
        (7_000, true, broken, None),
        (9_000, false, broken, None),
        (10_000, true, broken, None),
        (16_500, true, broken, Some("a")),
        (17_000, true, broken, None),
        (33_000, true, broken, Some("a")),
    ];
    for (at_ms, is_settled, members, expected) in rows {
        let now = begun + Duration::from_millis(at_ms);
        let found = view.returning(3, is_settled, &found(members), now);
        assert_eq!(found.as_deref(), expected, "at {at_ms} ms");
    }
    assert_eq!(view.returning(3, true, &[], begun + Duration::from_secs(60)), None, "an empty group has nobody to ask");
}

#[test]
fn an_outage_lasts_while_nobody_answers() {
    let mut view = View::default();
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("a machine that is up for longer");
    let down = || Err(Error::Unavailable("down".to_owned()));
    // How each look ends that was asked so many seconds ago, and how long the outage has lasted by then, at least.
    let rows: [(u64, Description, u64); 6] = [
        (60, down(), 60),
        (50, down(), 60),
        (40, Err(Error::Forbidden("not authorized".to_owned())), 0),
        (30, down(), 30),
        (20, Ok((true, Vec::new())), 0),
        (10, down(), 10),
    ];
    for (seconds, found, expected) in rows {
        let outage = view.take("b", &BTreeMap::new(), (ago(seconds), true), found).as_secs();
        assert!((expected..expected + 5).contains(&outage), "{seconds} s ago: {outage}");
    }
}

#[test]
fn the_table_follows_the_group() {
    let mut view = View::default();
    let said = |by: &str, address: &str| (by.to_owned(), address.to_owned());
    view.addresses = BTreeMap::from([(1, said("x-1", "x:1")), (2, said("x-0", "x:0"))]);
    let mut look = |found| {
        view.take("b", &own("own-1"), (Instant::now(), true), found);
        let owners = (0..3).filter_map(|id| Some((id, view.owner(id)?)));
        let owners = owners.map(|(id, owner)| format!("{id} {} {}", owner.lane, owner.address.unwrap_or_default()));
        let told = owners.collect::<Vec<_>>().join(", ");
        (told, format!("{:?}", view.unaddressed(&own("own-1"))), view.fault.is_some())
    };
    let both = found(&[("own", &[0]), ("x", &[1, 2])]);
    let seen = ("0 own , 1 x x:1, 2 x ".to_owned(), r#"{0: Some("own-1"), 2: None}"#.to_owned());
    let (table, unknown) = seen.clone();
    assert_eq!(look(Ok((true, both))), (table, unknown, false), "what an earlier life has said does not count");
    let (table, unknown) = seen.clone();
    assert_eq!(
        look(Err(Error::Unavailable("down".to_owned()))),
        (table, unknown, true),
        "a broker that is down takes nothing away"
    );
    let (table, unknown) = seen;
    assert_eq!(look(Err(Error::Forbidden("Read".to_owned()))), (table, unknown, true), "nor does a right that is missing");
    let deciding = found(&[("own", &[]), ("y", &[])]);
    let kept = ("0 own ".to_owned(), r#"{0: Some("own-1")}"#.to_owned(), false);
    assert_eq!(look(Ok((false, deciding))), kept, "who has gone has nothing");
}
