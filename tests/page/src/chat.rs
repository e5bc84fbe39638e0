//! How Slack shows our messages: Block Kit and its markdown as a web page, for the picture in the
//! docs. It knows what our messages use, and no more.

use std::fmt::Write;

use serde_json::Value;

/// The same alert twice: as it comes by an incoming webhook, and as it comes by Amazon Q Developer.
pub fn channel(block_kit: &Value, notification: &Value) -> String {
    let webhook = post("neverlapse", "N", &blocks(block_kit));
    let amazon_q = post("Amazon Q", "Q", &custom(notification));
    format!("<!doctype html><meta charset=utf-8><style>{STYLE}</style><main>{webhook}{amazon_q}</main>")
}

fn post(app: &str, letter: &str, body: &str) -> String {
    format!(
        "<article><b class=face>{letter}</b><div><p class=who><b>{app}</b> <i>APP</i> <small>06:01</small></p>{body}</div></article>"
    )
}

fn blocks(message: &Value) -> String {
    let mut html = String::new();
    for block in message["blocks"].as_array().into_iter().flatten() {
        let text = block["text"]["text"].as_str().unwrap_or_default();
        let _ = match block["type"].as_str() {
            // Plain text, in which only emoji mean something.
            Some("header") => write!(html, "<h1>{}</h1>", emoji(&entities(text))),
            Some("section") => write!(html, "<p>{}</p>", markdown(text)),
            Some("divider") => write!(html, "<hr>"),
            Some("context") => {
                let text = block["elements"][0]["text"].as_str().unwrap_or_default();
                write!(html, "<p class=context>{}</p>", markdown(text))
            }
            other => write!(html, "<p>{other:?} is not known here</p>"),
        };
    }
    html
}

fn custom(notification: &Value) -> String {
    let content = &notification["content"];
    let text = |name: &str| markdown(content[name].as_str().unwrap_or_default());
    let list = |name: &str| {
        let items = content[name].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(markdown).collect::<Vec<_>>()
    };
    let steps: String = list("nextSteps")
        .iter()
        .map(|step| format!("<li>{step}</li>"))
        .collect();
    let keywords: String = list("keywords")
        .iter()
        .map(|word| format!("<code>{word}</code> "))
        .collect();
    format!(
        "<div class=bar><p><b>{}</b></p><p>{}</p><p><b>Next Steps</b></p><ul>{steps}</ul><p>{keywords}</p></div>",
        text("title"),
        text("description")
    )
}

/// Slack's markdown: `*bold*`, `_italic_`, and code between backticks, each within a line. What
/// Slack wants escaped, HTML does too.
fn markdown(text: &str) -> String {
    text.lines().map(line).collect::<Vec<_>>().join("<br>")
}

fn line(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| match index % 2 {
        1 => format!("<code>{part}</code>"),
        _ => emoji(&emphasis(&emphasis(part, '*', "b"), '_', "em")),
    });
    let indent = text.len() - text.trim_start().len();
    format!("{}{}", "&nbsp;".repeat(indent), parts.collect::<String>())
}

/// What stands between two marks, each at the rim of a word.
fn emphasis(text: &str, mark: char, tag: &str) -> String {
    let is_rim = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    let mut html = String::new();
    let mut open = false;
    let characters: Vec<_> = text.chars().collect();
    for (at, c) in characters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| characters.get(at).copied());
        let after = characters.get(at + 1).copied();
        let rim = if open {
            is_rim(after)
        } else {
            is_rim(before) && after.is_some_and(|c| c != ' ')
        };
        if *c == mark && rim {
            let _ = write!(html, "<{}{tag}>", if open { "/" } else { "" });
            open = !open;
        } else {
            html.push(*c);
        }
    }
    html
}

fn entities(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn emoji(html: &str) -> String {
    EMOJI.iter().fold(html.to_owned(), |html, (name, color)| {
        html.replace(name, &format!("<span class=dot style=\"background:{color}\"></span>"))
    })
}

const EMOJI: [(&str, &str); 4] = [
    (":red_circle:", "#dd2e44"),
    (":black_circle:", "#31373d"),
    (":large_yellow_circle:", "#fdcb58"),
    (":large_green_circle:", "#78b159"),
];
const STYLE: &str = "
body { margin: 0; background: #fff; color: #1d1c1d; font: 15px/1.46 Lato, system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif; }
main { width: 720px; padding: 12px 20px; }
article { display: grid; grid-template-columns: 36px 1fr; gap: 8px; padding: 10px 0; }
.face { width: 36px; height: 36px; border-radius: 6px; background: #1b7a47; color: #fff; display: grid; place-items: center; font-size: 18px; }
article + article .face { background: #5b3cc4; }
p, h1, ul { margin: 0 0 6px; }
h1 { font-size: 18px; line-height: 1.3; margin-top: 4px; }
.who i { background: #e8e8e8; color: #616061; font: 600 10px/1 sans-serif; padding: 2px 3px; border-radius: 2px; vertical-align: 1px; }
small, .context { color: #616061; font-size: 13px; }
hr { border: 0; border-top: 1px solid #ddd; margin: 10px 0; }
code { font: 12px/1.5 ui-monospace, 'DejaVu Sans Mono', monospace; color: #c01343; background: #f6f6f6; border: 1px solid #ddd; border-radius: 3px; padding: 1px 3px; }
.bar { border-left: 4px solid #ddd; padding-left: 12px; }
ul { padding-left: 22px; }
.dot { display: inline-block; width: .95em; height: .95em; border-radius: 50%; vertical-align: -.1em; margin-right: .1em; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_at_the_rim_of_a_word_and_not_in_code() {
        for (text, html) in [
            ("*bold* and _so_", "<b>bold</b> and <em>so</em>"),
            ("a_b_c 2*3*4", "a_b_c 2*3*4"),
            ("`_acme-challenge`", "<code>_acme-challenge</code>"),
            ("   &lt;b&gt;\nx", "&nbsp;&nbsp;&nbsp;   &lt;b&gt;<br>x"),
        ] {
            assert_eq!(markdown(text), html);
        }
    }
}
