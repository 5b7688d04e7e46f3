//! Draws a fault: file, line, column, the line itself, a caret, hints. Unaware of where faults come from.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};

use crate::model::Diagnostic;

/// The drawing of an error, several lines without a final newline.
pub fn draw(diagnostic: &Diagnostic, color: bool) -> String {
    render(diagnostic, Level::ERROR, color)
}

/// The drawing of a warning.
pub fn draw_warning(diagnostic: &Diagnostic, color: bool) -> String {
    render(diagnostic, Level::WARNING, color)
}

fn render(diagnostic: &Diagnostic, level: Level<'_>, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let title = level.primary_title(diagnostic.message.as_str());
    let Some(label) = &diagnostic.label else {
        let mut out = renderer.render(&[annotate_snippets::Group::with_title(title)]);
        for hint in &diagnostic.hints {
            let help = Level::HELP.primary_title(hint.as_str());
            out.push('\n');
            out.push_str(&renderer.render(&[annotate_snippets::Group::with_title(help)]));
        }
        return out;
    };
    let hints = diagnostic.hints.iter().map(|hint| Level::HELP.message(hint.as_str()));
    // The renderer wants whole characters.
    let start = label.text.floor_char_boundary(label.start);
    let end = label.text.ceil_char_boundary(label.end.max(start));
    let mut annotation = AnnotationKind::Primary.span(start..end);
    if !label.note.is_empty() {
        annotation = annotation.label(label.note.as_str());
    }
    let snippet = Snippet::source(label.text.as_ref()).path(label.file.as_str()).annotation(annotation);
    renderer.render(&[title.element(snippet).elements(hints)])
}
