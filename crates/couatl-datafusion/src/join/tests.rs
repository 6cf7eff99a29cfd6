//! What the node says of itself: orders, ends, columns.

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::replace_children_if_necessary;
use datafusion::physical_plan::sorts::sort::SortExec;

use super::*;

/// No rows, in the order of the first column.
fn ordered(names: [&str; 2]) -> Arc<dyn ExecutionPlan> {
    let schema = Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Int64, false)).to_vec()));
    let by = PhysicalSortExpr::new_default(col(names[0], &schema).unwrap());
    Arc::new(SortExec::new([by].into(), Arc::new(EmptyExec::new(schema))))
}

fn join(join_type: JoinType, stream: JoinSide, projection: Option<Vec<usize>>) -> Result<PromptJoinExec> {
    let (left, right) = (ordered(["a", "b"]), ordered(["c", "d"]));
    let on = vec![(col("b", &left.schema())?, col("d", &right.schema())?)];
    let null_equality = NullEquality::NullEqualsNothing;
    let definition = JoinDefinition { join_type, on, filter: None, null_equality, null_aware: false };
    PromptJoinExec::try_new(left, right, stream, definition, projection, None)
}

fn orders(join: &PromptJoinExec) -> String {
    join.properties.equivalence_properties().oeq_class().to_string()
}

#[test]
fn the_order_of_the_stream_is_kept_wherever_its_columns_go() {
    use JoinSide::{Left, Right};
    for (join_type, stream, projection, expected) in [
        (JoinType::Inner, Left, None, "[[a@0 ASC, c@2 ASC]]"),
        (JoinType::Inner, Right, None, "[[c@2 ASC, a@0 ASC]]"),
        (JoinType::Right, Right, None, "[[c@2 ASC, a@0 ASC]]"),
        (JoinType::RightAnti, Right, None, "[[c@0 ASC]]"),
        (JoinType::LeftMark, Left, Some(vec![2, 0]), "[[a@1 ASC]]"),
        (JoinType::Inner, Right, Some(vec![3, 2]), "[[c@1 ASC]]"),
        (JoinType::Inner, Left, Some(vec![1]), "[]"),
    ] {
        let join = join(join_type, stream, projection.clone()).unwrap();
        assert_eq!(orders(&join), expected, "{join_type} {stream} {projection:?}");
        assert_eq!(join.maintains_input_order(), [stream == Left, stream == Right]);
    }
}

#[test]
fn rows_that_match_may_be_null_where_the_stream_is_kept() {
    let join = join(JoinType::Right, JoinSide::Right, None).unwrap();
    let nullable: Vec<_> = join.schema().fields().iter().map(|field| field.is_nullable()).collect();
    assert_eq!(nullable, [true, true, false, false]);
}

#[test]
fn a_projection_of_a_projection_is_one() {
    let join = join(JoinType::Inner, JoinSide::Left, Some(vec![3, 0])).unwrap();
    let names = |join: &PromptJoinExec| join.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    assert_eq!(names(&join), ["d", "a"]);
    assert_eq!(names(&join.with_projection(Some(vec![1])).unwrap()), ["a"]);
    assert_eq!(names(&join.with_projection(Some(vec![])).unwrap()), Vec::<String>::new());
}

#[test]
fn the_side_at_rest_comes_in_one_partition() {
    let join = join(JoinType::Inner, JoinSide::Left, None).unwrap();
    let required = join.input_distribution_requirements().into_per_child();
    assert!(matches!(required[..], [Distribution::UnspecifiedDistribution, Distribution::SinglePartition]));
}

#[test]
fn other_inputs_make_a_join_of_the_same_kind() {
    let join = Arc::new(join(JoinType::Left, JoinSide::Left, Some(vec![0, 3])).unwrap());
    let left = Arc::new(GlobalLimitExec::new(join.left.clone(), 0, Some(1)));
    let children = vec![left as _, join.right.clone()];
    let changed = replace_children_if_necessary(join.clone(), children).unwrap();
    assert_eq!(changed.schema(), join.schema());
    assert_eq!(changed.with_fetch(Some(3)).unwrap().fetch(), Some(3));
}

#[test]
fn what_waits_for_the_last_row_is_no_such_join() {
    let error = join(JoinType::Left, JoinSide::Right, None).unwrap_err().to_string();
    assert!(error.contains("a Left join cannot answer rows of its right side one by one"), "{error}");
    for join_type in [JoinType::Full, JoinType::LeftSemi, JoinType::LeftAnti, JoinType::LeftMark] {
        assert!(join(join_type, JoinSide::Right, None).is_err());
    }
}
