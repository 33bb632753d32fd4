use super::*;

#[test]
fn a_stage_goes_before_an_image_of_its_name() {
    let text = "FROM base AS build\nFROM alpine\nCOPY --from=BUILD a b\n\
                RUN --mount=from=Build,target=/x y\n";
    assert_eq!(names(&references(text)), ["base", "alpine"]);
    assert_eq!(names(&references("FROM base AS b\nFROM b\nFROM B\n")), ["base"]);
}

#[test]
fn a_stage_is_not_its_own_base_and_not_that_of_an_earlier_one() {
    assert_eq!(names(&references("FROM alpine AS alpine\nFROM alpine\n")), ["alpine"]);
    let text = "FROM x\nCOPY a b\nFROM 0 AS x\n";
    assert_eq!(names(&images_for(text, &[], Some("0"))), ["x"]);
}

#[test]
fn of_two_stages_with_a_name_the_later_counts() {
    let text = "FROM one AS x\nFROM two AS x\nFROM x\n";
    assert_eq!(names(&references(text)), ["two"]);
}

#[test]
fn an_expanded_name_may_be_a_stage() {
    let text = "ARG B=dev\nFROM a AS dev\nFROM b AS prod\nFROM $B\n";
    assert_eq!(names(&references(text)), ["a"]);
    assert_eq!(names(&images_for(text, &[("B", "prod")], None)), ["b"]);
}

#[test]
fn copy_takes_an_index_and_a_mount_does_not() {
    let text = "FROM a\nFROM b\nCOPY --from=0 x y\nRUN --mount=from=0,target=/t z\n";
    let references = references(text);
    assert_eq!(names(&references), ["a", "b", "0"]);
    assert_eq!(references[2].kind, ReferenceKind::MountFrom);
    assert_eq!(references[2].stage, 1);
}

#[test]
fn scratch_and_the_context_are_no_images() {
    let text = "FROM scratch\nCOPY --from=scratch a b\nCOPY --from= a b\n\
                RUN --mount=type=tmpfs,target=/t --mount=from=,target=/x y\n";
    assert_eq!(references(text), []);
}

#[test]
fn only_what_the_target_needs_is_named() {
    let text = "FROM a AS one\nFROM b AS two\nCOPY --from=i1 x y\nFROM one AS three\n\
                RUN --mount=type=cache,from=i2,target=/c z\nFROM c AS four\n\
                COPY --from=three x y\n";
    let dockerfile = read(text);
    let stages = |target| dockerfile.stages_needed(&args(&[]), target).expect("there");
    assert_eq!(stages(None), [0, 2, 3].into());
    assert_eq!(stages(Some("THREE")), [0, 2].into());
    assert_eq!(stages(Some("1")), [1].into());
    assert_eq!(stages(Some("")), [0, 2, 3].into());
    assert_eq!(names(&images_for(text, &[], Some("three"))), ["a", "i2"]);
    assert_eq!(names(&images_for(text, &[], Some("two"))), ["b", "i1"]);
    let up_to = dockerfile.image_references_up_to(&args(&[]), Some("two"));
    assert_eq!(names(&up_to.expect("there")), ["a", "b", "i1"]);
    assert_eq!(dockerfile.stages_up_to(Some("three")), Ok([0, 1, 2].into()));
}

#[test]
fn an_unknown_target_is_told_the_stages() {
    let error = read("FROM a AS one\nFROM b\n").stages_up_to(Some("tow"));
    let message = "Dockerfile line 1: there is no stage `tow` (stages with a name: one)";
    assert_eq!(error.expect_err("unknown").to_string(), message);
}

#[test]
fn a_name_that_cannot_work_is_a_mistake_where_it_is_needed() {
    let own = mistake("FROM a AS x\nCOPY --from=x b c\n");
    assert_eq!(own, "Dockerfile line 2: `COPY --from=x` is the stage that it stands in");
    assert!(mistake("FROM a\nCOPY --from=0 b c\n").contains("stands in"));
    let later = "FROM a AS x\nCOPY --from=y b c\nFROM d AS y\nFROM x\n";
    assert!(mistake(later).ends_with("only begins on line 3"));
    assert_eq!(names(&images_for(later, &[], Some("y"))), ["d"]);
    assert!(mistake("FROM a\nCOPY --from=7 b c\n").contains("no stage (stages: 0)"));
    assert!(mistake("FROM a\nCOPY --from=-1 b c\n").contains("no stage"));
    assert!(mistake("ARG X\nFROM a\nCOPY --from=$X b c\n").contains("not expanded"));
    assert!(mistake("FROM a\nRUN --mount=from=$X,target=/t y\n").contains("not expanded"));
}

#[test]
fn a_deferred_image_is_read_where_the_stage_is_a_base() {
    let alone = "FROM a AS x\nONBUILD COPY --from=i b c\n";
    assert_eq!(names(&references(alone)), ["a"]);
    let text = format!("{alone}FROM x\nRUN y\n");
    let references = references(&text);
    assert_eq!(names(&references), ["a", "i"]);
    assert!(references[1].onbuild && !references[0].onbuild);
    assert_eq!((references[1].stage, references[1].line), (1, 2));
    assert_eq!(renamed(&text), text.replace("FROM a", "FROM NEW").replace("=i", "=NEW"));
    let stage = "FROM z AS i\nFROM a AS x\nONBUILD COPY --from=i b c\nFROM x\n";
    let needed = read(stage).stages_needed(&args(&[]), None);
    assert_eq!(needed, Ok([0, 1, 2].into()));
}
