use super::*;

/// Expressions that are small to write, and what becomes of them.
#[test]
fn what_an_expression_costs_is_bounded() {
    let many = "(?:a|b|c|d)?".repeat(300);
    let groups = "()".repeat(2_000);
    for (text, is_taken) in [
        ("/api/v[0-9]+/users/[^/]+", true),
        (r"\w+@\w+\.example", true),
        ("(?i)mozilla.*(bot|crawler)", true),
        (r"[a-zA-Z0-9.-]{1,64}", true),
        // What would take more when it is compiled.
        (r"\w{1,1000}", false),
        ("(?:(?:a{100}){100}){100}", false),
        (r"(?:\w{20}){20}", false),
        // What would be more than one may write.
        (&"a".repeat(LONGEST + 1), false),
        // Many groups would cost each search a table of groups and states, if they were looked at.
        (&groups, true),
        (&many, true),
        ("(", false),
        ("a)(b", false),
    ] {
        let shown: String = text.chars().take(24).collect();
        for read in [Regex::whole(text), Regex::anywhere(text)] {
            assert_eq!(read.is_ok(), is_taken, "{shown}: {read:?}");
            let Ok(regex) = read else { continue };
            let weight = regex.with(weigh).unwrap();
            assert!(weight <= MAX_WEIGHT, "{shown}: {weight}");
        }
    }
    assert!(Regex::with_groups(&groups).is_err());
    assert_eq!(Regex::with_groups("(a)(b)").unwrap().groups(), 3);
}

/// What a search leaves behind is within what was weighed, whatever the text is.
#[test]
fn no_search_keeps_more_than_was_weighed() {
    for text in [
        "/api/v[0-9]+/users/[^/]+",
        // An automaton with as many states as there are texts of that length.
        "(?:a|b)*a(?:a|b){12}c",
        "[ab]*a[ab]{60}",
        r"\w*a\w{3}",
        r"(?i)\bmozilla\b.*\bbot\b",
        &"(?:a|b|c|d)?".repeat(300),
    ] {
        let regex = Regex::whole(text).unwrap();
        let loaded = regex.0.form.load();
        let (meta, weight) = (loaded.as_ref().unwrap(), regex.with(weigh).unwrap());
        let mut cache = meta.create_cache();
        let mut random = fastrand::Rng::with_seed(7);
        for length in [10, 100, 10_000] {
            for _ in 0..20 {
                let text: String =
                    (0..length).map(|_| random.choice(['a', 'b', 'c', 'é']).unwrap()).collect();
                let input = regex_automata::Input::new(&text);
                _ = meta.search_with(&mut cache, &input);
                let kept = meta.memory_usage() + cache.memory_usage();
                assert!(kept <= weight, "{}: {kept} of {weight}", regex.as_str().len());
            }
        }
    }
}

#[test]
fn all_expressions_of_an_object_are_counted() {
    let one = || Regex::whole("/a/[0-9]+").map(|_| ());
    let weight = metered(usize::MAX, || {
        one().unwrap();
        regexes_so_far().weight()
    });
    assert!(weight > 0);
    for (budget, count) in [(0, 0), (weight - 1, 0), (weight, 1), (3 * weight + 1, 3)] {
        let read = metered(budget, || (0..10).filter(|_| one().is_ok()).count());
        assert_eq!(read, count, "{budget} of {weight}");
        let error = metered(budget, || (0..10).find_map(|_| one().err()));
        assert_eq!(error, Some(RegexError::Budget(budget)));
    }
    // One object's weight is not another's, nor is what is compiled beside.
    assert_eq!(regexes_so_far().weight(), 0);
    metered(weight, || {
        assert_eq!(metered(weight, one), Ok(()));
        assert_eq!(one(), Ok(()));
        assert!(one().is_err());
    });
    assert_eq!(one(), Ok(()));
}

#[test]
fn whole_texts_are_matched_whole() {
    for (text, given, expected) in [
        ("a|ab", "ab", true),
        ("a", "ab", false),
        ("a.*", "abc", true),
        ("", "", true),
        ("", "a", false),
        ("(?i)A", "a", true),
        (r"\d+", "12", true),
    ] {
        assert_eq!(Regex::whole(text).unwrap().is_whole(given), expected, "{text} {given}");
    }
    let regex = Regex::anywhere("b").unwrap();
    assert!(regex.is_match("abc") && !regex.is_whole("abc") && !regex.is_match("ac"));
}

/// What is laid down takes no more than its text, means the same to whoever still uses it, and can be taken up again.
#[test]
fn what_is_laid_down_is_not_held_and_means_the_same() {
    let read = metered(usize::MAX, || {
        let all = [Regex::whole("a+").unwrap(), Regex::with_groups("(b)c").unwrap()];
        (all, regexes_so_far())
    });
    let ([whole, groups], all) = read;
    let held = || [&whole, &groups].map(|regex| regex.0.form.load().is_some());
    let means_the_same = || {
        assert!(whole.is_whole("aa") && !whole.is_whole("ab") && groups.groups() == 2);
        let mut found = Vec::new();
        groups.captures("bc bc", |captures| {
            found.push(captures.get_group(1).unwrap().range());
            ControlFlow::Continue(())
        });
        assert_eq!(found, [0..1, 3..4]);
    };
    for _ in 0..2 {
        means_the_same();
        assert_eq!(held(), [false; 2], "no request takes them up for others");
        all.take_up();
        assert_eq!(held(), [true; 2]);
        means_the_same();
        all.lay_down();
    }
}
