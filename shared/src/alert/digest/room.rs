//! The room in a message: long parts are shortened before any is left out, and none hides those
//! after it.
//!
//! Lengths are in bytes, except an excerpt's. Chats count UTF-16 units, and no text has more of
//! them than bytes.

use crate::text::{cut, cut_bytes, printable};

/// What somebody else wrote: harmless, and about `longest` characters of it. The end stays too: a
/// message says there when the next try is, or how many others are concerned.
pub(super) fn excerpt(text: &str, longest: usize) -> String {
    let text = printable(text);
    let length = text.chars().count();
    if length <= longest {
        return text;
    }
    let end: String = text.chars().skip(length - longest / 4).collect();
    format!("{} {end}", cut(&text, longest - longest / 4))
}

/// `head` and the parts under it, each of which ends its line, within `most`. What is left out is
/// counted.
pub(in crate::alert) fn shortened(head: &str, parts: Vec<String>, most: usize) -> String {
    let lengths: Vec<_> = parts.iter().map(String::len).collect();
    if head.len() + lengths.iter().sum::<usize>() <= most {
        return format!("{head}{}", parts.concat());
    }

    let room = most.saturating_sub(head.len() + COUNT);
    let longest = share(lengths, room).max(LEAST).min(room);
    let all = parts.len();
    let parts = parts.into_iter().map(|part| {
        if part.len() <= longest {
            part
        } else {
            format!("{}{CUT}", cut_bytes(&part, longest.saturating_sub(CUT.len())))
        }
    });
    let shown = fitting(parts, room, String::len);

    let more = match all - shown.len() {
        0 => String::new(),
        more => format!("  +{more} more here\n"),
    };
    format!("{head}{}{more}", shown.concat())
}

/// Those that fit, in their order.
pub(in crate::alert) fn fitting<T>(
    all: impl IntoIterator<Item = T>,
    mut room: usize,
    length: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut shown = Vec::new();
    for one in all {
        if let Some(left) = room.checked_sub(length(&one)) {
            room = left;
            shown.push(one);
        }
    }
    shown
}

/// How long each may be so that all fit: short ones leave their room to long ones.
pub(super) fn share(mut lengths: Vec<usize>, mut room: usize) -> usize {
    lengths.sort_unstable();
    for (index, length) in lengths.iter().enumerate() {
        let share = room / (lengths.len() - index);
        if *length > share {
            return share;
        }
        room -= length;
    }
    usize::MAX
}

/// Below this, a section or an entry would say too little: some are left out instead.
pub(super) const LEAST: usize = 800;
/// Where a part is cut.
const CUT: &str = "…\n";
/// For the line that counts what is left out.
const COUNT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_long_is_shortened() {
        for (lengths, room, expected) in [
            (vec![], 10, usize::MAX),
            (vec![5, 5], 10, usize::MAX),
            (vec![100, 2, 3], 10, 5),
            (vec![100, 2, 100], 10, 4),
            (vec![1, 1, 1], 2, 0),
        ] {
            assert_eq!(share(lengths.clone(), room), expected, "{lengths:?}");
        }
        assert_eq!(fitting([8, 9, 1, 2, 1], 10, |length| *length), [8, 1, 1]);
    }

    #[test]
    fn an_excerpt_has_the_start_and_the_end() {
        assert_eq!(excerpt("12345678", 8), "12345678");
        assert_eq!(excerpt("123456789", 8), "123456… 89");
        assert_eq!(excerpt(&"\u{1}".repeat(1_000), 8), "\\u{1}\\… 1}");
        assert_eq!(excerpt("書書書書書終", 4), "書書書… 終");
    }

    #[test]
    fn what_is_left_out_of_a_section_is_counted() {
        let short: Vec<_> = (0..1_000).map(|n| format!("part {n:03}\n")).collect();
        let text = shortened("head\n", short.clone(), 8_000);
        assert!(text.len() <= 8_000, "{}", text.len());
        let (shown, more) = text.split_once("  +").unwrap();
        let more: usize = more.trim_end().strip_suffix(" more here").unwrap().parse().unwrap();
        assert_eq!(shown.matches("part ").count() + more, 1_000);
        assert!(more < 200, "{more}");

        let long = [vec!["書".repeat(9_000) + "\n"], short[..9].to_vec()].concat();
        let text = shortened("head\n", long.clone(), 2_000);
        assert!(text.len() <= 2_000 && text.contains("…\npart 000\n"), "{text}");
        assert!(text.ends_with("part 008\n"), "{text}");
        assert_eq!(
            shortened("head\n", long.clone(), usize::MAX),
            format!("head\n{}", long.concat())
        );
    }
}
