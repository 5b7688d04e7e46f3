//! `eval.rouge`: how much each prediction shares with its target. Unaware of how the scores are computed.

use indexmap::IndexMap;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::lcs::{MOST_CELLS, TooLong};
use super::{Unscored, google, pltrdy};
use crate::api::{Done, ParamFault, Signature, Stage, StageContext, StageError, parse_params};
use crate::stage::table::jsonl::{self, JsonLines};

/// The stage.
pub(in crate::stage::eval) struct Rouge;

/// What `with` holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Whose definition: their numbers are not comparable.
    #[serde(default)]
    variant: Variant,
    /// google: stem words of more than three letters (Porter, as NLTK has it). Default false.
    stemmer: Option<bool>,
    /// pltrdy: n-grams count once, as sets. Default true.
    exclusive: Option<bool>,
    /// Which scores; all if left out.
    types: Option<Vec<String>>,
}

/// Whose definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Variant {
    /// `rouge-score` 0.1.2 of Google Research.
    #[default]
    Google,
    /// `rouge` 1.0.1 of pltrdy.
    Pltrdy,
}

/// One line of the input.
#[derive(Debug, Deserialize)]
struct Pair {
    id: Value,
    target: String,
    prediction: String,
}

impl Params {
    fn types(&self) -> Vec<&str> {
        let all: &[&'static str] = match self.variant {
            Variant::Google => &google::TYPES,
            Variant::Pltrdy => &pltrdy::TYPES,
        };
        match &self.types {
            None => all.to_vec(),
            Some(types) => types.iter().map(String::as_str).collect(),
        }
    }

    fn score(&self, pair: &Pair) -> Result<Vec<[f64; 3]>, Unscored> {
        let types = self.types();
        match self.variant {
            Variant::Google => {
                google::score(&pair.target, &pair.prediction, self.stemmer.unwrap_or(false), &types)
            }
            Variant::Pltrdy => {
                pltrdy::score(&pair.target, &pair.prediction, self.exclusive.unwrap_or(true), &types)
            }
        }
    }
}

impl Params {
    fn refused(&self, place: &str, too_long: TooLong) -> StageError {
        let (kind, part) = match self.variant {
            Variant::Google => ("rougeLsum", "line"),
            Variant::Pltrdy => ("rouge-l", "sentence"),
        };
        let TooLong { left, right } = too_long;
        StageError::new(format!(
            "{place}: {kind}: a {part} of {left} words in the target and one of {right} in the prediction: {left} x {right} is more than \
             {MOST_CELLS}, the most that one table holds"
        ))
        .hint(format!("was a {part} end lost? Or leave {kind} out: the parameter 'types' names the others"))
    }
}

impl Stage for Rouge {
    fn name(&self) -> &'static str {
        "eval.rouge"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Scores predictions against targets with ROUGE.\n\
                \n\
                variant google: rouge-score 0.1.2 bit for bit (rouge1, rouge2, rouge3, rougeL, rougeLsum; lower-case ASCII words,\n\
                so texts in other scripts have none and score 0). variant pltrdy: rouge 1.0.1 bit for bit (rouge-1, rouge-2, rouge-l;\n\
                words as they are; an empty text is an error of its row, as the original raises there). F is on a scale of 0 to 1.\n\
                Their numbers are not comparable with each other, nor with the Perl ROUGE-1.5.5. rougeLsum and rouge-l refuse a line or sentence of so many\n\
                words, beside one of the other text, that the product is more than 2^31.\n\
                \n\
                Means are sums of F in file order, divided by the number of rows without an error.",
        )
        .input("pairs", "JSONL: {\"id\", \"target\", \"prediction\"}")
        .optional_output("scores", "JSONL, a line per pair: {\"id\", TYPE: [precision, recall, F], ...} or {\"id\", \"error\"}")
        .output("summary", "JSON: {\"variant\", \"stemmer\" | \"exclusive\", \"pairs\", \"n\", \"errors\", \"mean_f\"}")
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        let params: Params = parse_params(with)?;
        let fault = |path: &str, message: String| Err(ParamFault { path: path.to_owned(), message });
        let (all, foreign): (&[&str], _) = match params.variant {
            Variant::Google => (&google::TYPES, params.exclusive.map(|_| "exclusive")),
            Variant::Pltrdy => (&pltrdy::TYPES, params.stemmer.map(|_| "stemmer")),
        };
        if let Some(name) = foreign {
            return fault(name, "the other variant has this".into());
        }
        let types = params.types();
        if types.is_empty() {
            return fault("types", "expected at least one".into());
        }
        for (index, kind) in types.iter().enumerate() {
            if !all.contains(kind) {
                return fault("types", format!("'{kind}' is none of this variant's: {}", all.join(", ")));
            }
            if types[..index].contains(kind) {
                return fault("types", format!("'{kind}' stands twice"));
            }
        }
        Ok(())
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let file = ctx.input("pairs")?;
        let mut read = JsonLines::open(file)?;
        let (mut pairs, mut places): (Vec<Pair>, _) = (Vec::new(), Vec::new());
        while let Some(pair) = read.value()? {
            pairs.push(pair);
            places.push(read.line());
        }
        let found: Vec<_> = pairs.par_iter().map(|pair| params.score(pair)).collect();
        let mut scored = Vec::with_capacity(found.len());
        for (found, line) in found.into_iter().zip(places) {
            scored.push(match found {
                Ok(scores) => Ok(scores),
                Err(Unscored::Raised(raised)) => Err(raised),
                Err(Unscored::TooLong(too_long)) => {
                    return Err(params.refused(&format!("{}:{line}", file.name), too_long));
                }
            });
        }
        let types = params.types();
        let mut sums = vec![0.0; types.len()];
        let mut errors = 0_u64;
        let mut lines = Vec::new();
        for (pair, scored) in pairs.iter().zip(&scored) {
            let mut line: IndexMap<&str, Value> = IndexMap::from([("id", pair.id.clone())]);
            match scored {
                Ok(scores) => {
                    for ((kind, score), sum) in types.iter().zip(scores).zip(&mut sums) {
                        line.insert(kind, json!(score));
                        *sum += score[2];
                    }
                }
                Err(raised) => {
                    line.insert("error", json!(raised));
                    errors += 1;
                }
            }
            jsonl::write_line(&mut lines, &line, "scores")?;
        }
        let n = pairs.len() as u64 - errors;
        let mean = |sum: &f64| if n == 0 { Value::Null } else { json!(sum / n as f64) };
        let mean_f: IndexMap<&str, Value> = types.iter().copied().zip(sums.iter().map(mean)).collect();
        let mut summary: IndexMap<&str, Value> = IndexMap::from([("variant", json!(params.variant))]);
        match params.variant {
            Variant::Google => summary.insert("stemmer", json!(params.stemmer.unwrap_or(false))),
            Variant::Pltrdy => summary.insert("exclusive", json!(params.exclusive.unwrap_or(true))),
        };
        summary.extend([
            ("pairs", json!(pairs.len())),
            ("n", json!(n)),
            ("errors", json!(errors)),
            ("mean_f", json!(mean_f)),
        ]);
        ctx.write("scores", &lines)?;
        ctx.write_json("summary", &summary)?;
        ctx.log(format!("{} pairs: {n} scored, {errors} with an error", pairs.len()));
        Ok(Done::Made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::harness::{Bench, fixtures};

    fn bench(with: Value) -> Bench<'static> {
        Bench::new(&Rouge, with)
    }

    #[test]
    fn the_fixtures_come_out_bit_for_bit() {
        let Some(fixtures) = fixtures() else { return };
        let dir = fixtures.join("rouge");
        let text = std::fs::read_to_string(dir.join("expected.jsonl")).unwrap();
        let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let means: Value =
            serde_json::from_str(&std::fs::read_to_string(dir.join("aggregate.json")).unwrap()).unwrap();
        for (with, library, kind) in [
            (json!({"stemmer": true}), "rouge_score", "stem"),
            (json!({}), "rouge_score", "nostem"),
            (json!({"variant": "pltrdy"}), "pltrdy", "exclusive"),
            (json!({"variant": "pltrdy", "exclusive": false}), "pltrdy", "counted"),
        ] {
            let done = bench(with).path("pairs", &dir.join("pairs.jsonl")).run(&["scores", "summary"]).ok();
            let scores = done.text("scores");
            let mut count = 0;
            for (line, expected) in scores.lines().zip(&expected) {
                let mut line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["id"], expected["id"]);
                line.as_object_mut().unwrap().shift_remove("id");
                assert_eq!(line, expected[library][kind], "{kind} {}", expected["id"]);
                count += 1;
            }
            assert_eq!((count, expected.len()), (42, 42));
            let summary = done.json("summary");
            if library == "rouge_score" {
                assert_eq!(summary["mean_f"], means[library][kind]);
                assert_eq!((&summary["n"], &summary["errors"]), (&json!(42), &json!(0)));
            } else {
                assert_eq!((&summary["n"], &summary["errors"]), (&json!(38), &json!(4)));
            }
        }
    }

    #[test]
    fn faults_are_named() {
        let fault =
            |with: Value| Rouge.check(&with).map_err(|fault| format!("{}: {}", fault.path, fault.message));
        assert_eq!(
            fault(json!({"variant": "pltrdy", "stemmer": true})),
            Err("stemmer: the other variant has this".into())
        );
        assert!(fault(json!({"types": ["rouge-1"]})).unwrap_err().starts_with("types: 'rouge-1' is none"));
        assert!(fault(json!({"types": []})).is_err());
        let done =
            bench(json!({})).file("pairs", "p.jsonl", "{\"id\": 1, \"target\": \"a\"}\n").run(&["summary"]);
        let Err(error) = done.result else { panic!("a pair without a prediction was taken") };
        assert!(error.message.starts_with("p.jsonl:1: missing field `prediction`"), "{}", error.message);
    }

    #[test]
    fn texts_too_long_for_the_union_are_refused_with_their_place() {
        let long = "a ".repeat(60_000);
        let lines = format!(
            "{}\n\n{}\n",
            json!({"id": 1, "target": "a b", "prediction": "a"}),
            json!({"id": 2, "target": long, "prediction": long})
        );
        for (with, start) in [
            (
                json!({}),
                "p.jsonl:3: rougeLsum: a line of 60000 words in the target and one of 60000 in the prediction: ",
            ),
            (json!({"variant": "pltrdy"}), "p.jsonl:3: rouge-l: a sentence of 60000 words"),
        ] {
            let error = bench(with).file("pairs", "p.jsonl", &lines).run(&["summary"]).result.unwrap_err();
            assert!(
                error.message.starts_with(start) && error.message.contains("2147483648"),
                "{}",
                error.message
            );
        }
        bench(json!({"types": ["rouge1"]})).file("pairs", "p.jsonl", &lines).run(&["summary"]).ok();
    }

    #[test]
    fn no_pair_has_no_mean() {
        let done =
            bench(json!({"types": ["rougeL"]})).file("pairs", "p.jsonl", "").run(&["scores", "summary"]).ok();
        assert_eq!(done.json("summary")["mean_f"], json!({"rougeL": null}));
        assert_eq!(done.text("scores"), "");
    }
}
