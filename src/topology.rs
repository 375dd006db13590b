//! `finflow topology`: the declared graph, drawn.

use finflow_topologies::graph;

use crate::cli::Format;

pub(crate) fn draw(format: Format) -> String {
    match format {
        Format::Mermaid => graph::mermaid(),
        Format::Text => graph::text(),
        Format::Json => graph::json(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_shows_the_declared_graph() {
        let readme = include_str!("../README.md");
        let drawn = readme.split("```mermaid\n").nth(1).and_then(|rest| rest.split("```").next());
        assert_eq!(drawn, Some(&*draw(Format::Mermaid)));
    }
}
