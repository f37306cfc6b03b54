"""The database: where it is."""

from suffuse.studio.settings import Settings
from suffuse.studio.store import Store


def test_a_folder_may_have_any_name(tmp_path):
    data = tmp_path / "what? 100%41 #1"
    data.mkdir()
    store = Store(Settings(data=data))
    store.open()
    store.close()
    assert (data / "studio.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [data.name]
