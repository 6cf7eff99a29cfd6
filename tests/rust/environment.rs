//! Which Python a program gets: the environment that it names, and one for the whole process.

use std::path::{Path, PathBuf};

use couatl::{Engine, ErrorKind};
use datafusion::arrow::array::AsArray;

#[tokio::test]
async fn bodies_see_the_environment_that_the_engine_names() {
    let environment = PathBuf::from(std::env::var_os("VIRTUAL_ENV").expect("make test sets VIRTUAL_ENV"));
    let nowhere = Engine::builder().python("/no/such/place").build().unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::InvalidArgument);
    assert!(nowhere.to_string().starts_with("no Python environment at '/no/such/place'"), "{nowhere}");

    let engine = Engine::builder().python(&environment).build().unwrap();
    let create = "CREATE EXTERNAL STREAM place (prefix string) AS $$\nimport sys\nimport pyarrow\n\
                  def place():\n    return [sys.prefix]\n$$ SETTINGS type = 'python'";
    engine.sql(create).await.unwrap();
    let rows = engine.sql("SELECT prefix FROM place").await.unwrap().collect().await.unwrap();
    assert_eq!(Path::new(rows[0].column(0).as_string::<i32>().value(0)), environment);

    let another = Engine::builder().python("/usr").build().unwrap_err();
    assert!(another.to_string().contains("a process has one environment"), "{another}");
}
