"""Credentials are masked in whatever text they stand, and text that only speaks of them stays as it is."""

import base64
import hashlib
import random
import string
import subprocess
import uuid
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pmexp.masking import holds_credential, masked, masked_arguments

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:hunter2@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("https://:p@ss/w0rd@host/x", "https://:***@host/x"),
        ("git+https://a1b2c3d4@github.com/x", "git+https://***@github.com/x"),
        ("get http://host:5000/a@b", "get http://host:5000/a@b"),
        ("+  password: hunter2", "+  password: ***"),
        ("password2: hunter2", "password2: ***"),
        ("DB_PASSWORD_2=hunter2", "DB_PASSWORD_2=***"),
        ('+HF_API_KEY = "hunter2"', '+HF_API_KEY = "***"'),
        ('os.environ["API_KEY"]="hunter2"', 'os.environ["API_KEY"]="***"'),
        ('{"client_secret": "hunter2"}', '{"client_secret": "***"}'),
        ("{user: me, password: hunter2}", "{user: me, password: ***}"),
        ("connect(me, password=hunter2)", "connect(me, password=***)"),
        (
            "setup: [module load gcc, export PGPASSWORD=hunter2]",
            "setup: [module load gcc, export PGPASSWORD=***]",
        ),
        ("http://x/?a=1&password=hunter2&b=2", "http://x/?a=1&password=***&b=2"),
        ("http://x/#access_token=hunter2", "http://x/#access_token=***"),
        ("x:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2", "x:///?odbc_connect=UID=me;PWD=***"),
        ("dsn='UID=me;PWD=hunter2;x=1'", "dsn='UID=me;PWD=***;x=1'"),
        ("AccountName=me;AccountKey=aGk=;x=1", "AccountName=me;AccountKey=***;x=1"),
        ("token=0a1b2c3d4e5f6a7b", "token=***"),
        ("use hf_abcdefghijklmnopqrst please", "use *** please"),
        (
            "+  key: |\n+    password: |\n+      a\n+      b\n+  x: 1",
            "+  key: |\n+    password: |\n+      ***\n+  x: 1",
        ),
        (
            "@@ -5,3 +5,3 @@ private_key: |\n   abc\n+  def\n z: 1",
            "@@ -5,3 +5,3 @@ private_key: |\n   ***\n z: 1",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIB\nAAAA\n-----END",
            "-----BEGIN RSA PRIVATE KEY-----***-----END",
        ),
        ("password=hunter2: has no effect; leave it out", "password=***: has no effect; leave it out"),
        ("error: +a.api_key=hunter2: is not a key", "error: +a.api_key=***: is not a key"),
        ("--password hunter2: is given twice", "--password ***: is given twice"),
        ("password=a:b:c: is given twice", "password=***: is given twice"),
        ("name=secret: run hunter2 of it", "name=secret: ***"),
        ("name=secret: 'hunter2' is not it", "name=secret: '***' is not it"),
        ("x=password: correct horse battery", "x=password: ***"),
        ("password: is-hunter2", "password: ***"),
        ("the value is planted-value here", "the value is *** here"),
        ("the value is planted%2Dvalue here", "the value is planted%2Dvalue here"),
    ],
)
def test_what_is_masked_in_text(text: str, expected: str) -> None:
    assert masked(text, {"SOME_TOKEN": "planted-value", "USER": "value"}) == expected


# --- every form in every context

LETTERS = string.ascii_letters + string.digits
FORMS = {  # made up; each with a place for random letters
    "github": "ghp_{36}", "hub": "hf_{34}", "gitlab": "glpat-{20}", "openai": "sk-proj-{40}", "slack": "xoxb-1234567890-{24}",
    "aws": "AKIA{AWS}", "google": "AIza{35}", "jwt": "eyJ{20}.eyJ{40}.{40}", "databricks": "dapi{HEX}", "npm": "npm_{36}",
    "stripe": "sk_live_{24}", "sendgrid": "SG.{22}.{43}", "pypi": "pypi-AgEIcHlwaS5vcmc{60}", "vault": "hvs.{24}",
}  # fmt: skip


def made_up(form: str, letters: str) -> str:
    """The form with random letters in its places."""
    for size in (20, 22, 24, 34, 35, 36, 40, 43, 60):
        form = form.replace(f"{{{size}}}", letters[:size])
    return form.replace("{AWS}", letters[:16].upper()).replace(
        "{HEX}", hashlib.md5(letters.encode()).hexdigest()
    )


@st.composite
def passwords(draw: st.DrawFn) -> str:
    """Draws passwords as people choose them, of letters without a meaning in any syntax; some are words, some have
    brackets."""
    inner = st.text(LETTERS + "!^*_-+.~}])", min_size=6, max_size=24)
    return "Qj" + draw(inner) + draw(st.sampled_from(["x7", "7", "horse"]))


NAMED = [  # §: the value
    'os.environ["API_KEY"]="§"', "os.environ['API_KEY'] = '§'", 'os.environ.setdefault("DB_PASSWORD", "§")',
    'os.getenv("DB_PASSWORD", "§")', 'os.environ.get("DB_PASSWORD") or "§"', 'password: str = "§"', 'password = """§"""',
    'PASSWORD = SecretStr("§")', "password = b'§'", 'password = "a" + "§"', 'if password == "§":', "f(user, password=§)",
    "f(user, password='§', host='x')", 'auth=("me", "§")', "{'user': 'me', 'password': §}", "{user: me, password: §}",
    "[a, {password: §}]", '{"a": {"secret": "§"}}', r'"{\"password\": \"§\"}"', "[export PGPASSWORD=§]",
    "setup: [module load gcc, export PGPASSWORD=§]", "setup: [export PGPASSWORD=§, export B=1]", 'setup: ["export PGPASSWORD=§"]',
    "hydra.launcher.setup=[export PGPASSWORD=§]", "export PGPASSWORD='§' && python x.py", "PGPASSWORD=§ python x.py",
    "passphrase: §", "DB_PASS=§", "SMTP_PASS: §", "MYSQL_PWD=§", "AccountName=me;AccountKey=§;EndpointSuffix=x",
    "Server=x;Password=§;Trusted=no", "PWD={§};Server=x", "--password §", "--password=§", "--api-key § x", "--token=§1a",
    "ENV DB_PASSWORD §", "setenv PGPASSWORD §", "ARG DB_PASSWORD=§", "machine x login me password §", "${DB_PASSWORD:-§}",
    "<password>§</password>", '<add name="x" password="§"/>', "db.password=§", "spring.datasource.password=§",
    "client_secret => '§'", 'const apiKey = "§";', 'string dbPassword = "§";', "$config['password'] = '§';",
    "passwords: [a, §]", "secrets: {db: §}", "secrets:\n  - §\n  - b", "password:\n  §", "password: >-\n  §\n  §\nnext: 1",
    "a:\n  password: |\n    x\n    §\n  b: 1", '"password":\n  "§"', "export PASSWORD=\\\n  §", 'PASSWORD="a\n§"',
    "password = correct § battery", "password: correct § battery", "'password': 'it''s §'", "WITH PASSWORD '§'",
    "IDENTIFIED BY '§'", "curl -u me:§ http://x", "curl --user me:§ http://x", "mysql -u root -p§ db", "sshpass -p § ssh x",
    '-H "Authorization: Bearer §"', "-H 'X-Api-Key: §'", '{"Authorization": "Basic §"}', "https://me:§@host/x", "x://:§@host",
    "env:\n- name: DB_PASSWORD\n  value: §", '- name: "DB_PASSWORD"\n  value: "§"', '{"name": "DB_PASSWORD", "value": "§"}',
    "{name: DB_PASSWORD, value: §}", '<add key="password" value="§"/>', 'HTTPBasicAuth("me", "§")', "secret_key_base: §",
    "password: !vault |\n  x\n  §", "docker login -u me -p § host",
]  # fmt: skip
BARE = [
    "§",
    '"§"',
    "x = '§'",
    "{a: §}",
    "[§]",
    "(§)",
    "see §.",
    "a=§&b=1",
    "https://host/x?y=§",
    "https://§@host/x",
    "<a>§</a>",
]


def lines_of(text: str, prefix: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in text.split("\n"))


def contexts(text: str) -> list[str]:
    """The text alone, in a file, and as lines of a diff."""
    inside = "@@ -1,3 +1,4 @@\n x = 1\n{} y = 2\n"
    return [text, f"x = 1\n{text}\ny = 2\n", *(inside.format(lines_of(text, prefix)) for prefix in "+- ")]


@settings(max_examples=25)
@given(passwords())
@example("Qj}])}])1a")
@example("correcthorsebattery")
def test_no_password_gets_out_of_any_syntax(value: str) -> None:
    for template in NAMED:
        for text in contexts(template.replace("§", value)):
            said = masked(text, {})
            assert value not in said, (text, said)
            assert masked(said, {}) == said


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15)
@given(st.text(LETTERS, min_size=60, max_size=60).map(lambda text: "A1b2" + text))
def test_no_token_gets_out_wherever_it_stands(form: str, letters: str) -> None:
    value = made_up(FORMS[form], letters)
    for template in BARE:
        for text in contexts(template.replace("§", value)):
            assert value not in masked(text, {}), text


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["password", "token", "hf_", "sk-", "key-", "AKIA", "eyJ", ".", "-", "_", "s0"]),
            st.text(LETTERS + "\N{LATIN SMALL LETTER LONG S}\N{KELVIN SIGN}", min_size=1, max_size=24),
        ),
        max_size=6,
    )
    .map("".join)
    .filter(lambda name: not name.startswith("-"))  # by itself that is a line which a diff removes
)
@example("hf_abcdefghijklmnopqrst")
def test_a_name_by_itself_is_masked_as_in_a_sentence(name: str) -> None:
    assert masked(f" {name}", {}) == f" {masked(name, {})}"


@pytest.mark.parametrize(("size", "share"), [(18, 0.93), (24, 0.97), (32, 0.99), (64, 1.0)])
def test_letters_in_disorder_are_taken_for_a_credential(size: int, share: float) -> None:
    """Nobody's name says it there, so that a few by chance look like words."""
    numbers = random.Random(size)
    values = [base64.urlsafe_b64encode(numbers.randbytes(size)).decode() for _ in range(300)]
    is_masked = [value not in masked(f"x = f('{value}')", {}) for value in values]
    assert sum(is_masked) >= share * len(is_masked)


@given(passwords(), st.integers(1, 3))
@example("QjAAPw}0x7", 1)  # not the name in braces of an f-string
@example("QjAAPw}]x7", 2)
def test_what_is_encoded_is_seen_through(value: str, times: int) -> None:
    hidden = f"UID=me;PWD={{{value}}};x=1"
    encoded = [value]
    for _ in range(times):
        hidden, encoded = quote(hidden, safe=""), [*encoded, quote(encoded[-1], safe="")]
    said = masked(f"uri: mssql:///?odbc_connect={hidden}&x=1", {})
    assert not any(form in said for form in encoded)


@given(st.text(LETTERS + "/+", min_size=60, max_size=300), st.sampled_from("+- "))
def test_no_private_key_gets_out(body: str, prefix: str) -> None:
    lines = [body[start : start + 60] for start in range(0, len(body), 60)]
    for kind in ("RSA ", "OPENSSH ", "ENCRYPTED ", ""):
        begin, end = f"-----BEGIN {kind}PRIVATE KEY-----", f"-----END {kind}PRIVATE KEY-----"
        whole = "\n".join([begin, *lines, end])
        for text in (whole, whole.replace("\n", "\\n"), "\n".join([begin, *lines]), "\n".join([*lines, end])):
            assert lines[0] not in masked(lines_of(f"{text}\nx = 1", prefix), {})


# --- what stays

SAID = [
    "is not an option; allowed are a and b", "has no runs", "run 3 is claimed by another process", "holds a slash",
    "there is no folder /a/b", "needs one of a, b", "cannot be written", "is a sweep of 22 runs; add -m", "was given twice",
]  # fmt: skip


@pytest.mark.parametrize("said", SAID)
@given(passwords())
@settings(max_examples=5)
def test_what_is_said_of_an_argument_is_read_and_its_secret_is_not(said: str, value: str) -> None:
    """The value of `variant` may be a word such as `secret`, and that of `password` is one."""
    for argument in ("variant=secret", "name=my-password", "error: a.path=db_pass", "experiment=API_KEY"):
        assert masked(f"{argument}: {said}", {}) == f"{argument}: {said}"
    for name in ("tracking.password=", "--token=", "HF_TOKEN="):
        line = masked(f"error: {name}{value}1a: {said}", {})
        assert value not in line and line.endswith(said), line


@pytest.mark.parametrize(
    "said", ["is not a key; did you mean seed?", "has no value", "must be set", "cannot be read"]
)
def test_what_is_said_of_a_key_is_read(said: str) -> None:
    for text in (f"secret: {said}", f"error: tracking.password: {said}"):
        assert masked(text, {}) == text


RUN_ID = f"pm-drop-s0-{hashlib.sha256(b'x').hexdigest()[:12]}"
ORDINARY = [
    "rows = sorted(found, key=len)", "key = next(iter(names))", "tokenizer = from_folder(x)", "pad_token = tokenizer.eos_token",
    "tokens: 128", "max_tokens=128", "num_tokens = 1024", 'pad_token = "[PAD]"', 'eos_token: "<|endoftext|>"',
    "password = getpass()", "password_file: /run/secrets/db", "token_id: 50256", "password=password", "token=args.token",
    "def login(user: str, password: str) -> None:", "password: str | None = None", 'token = os.environ["HF_TOKEN"]',
    'getpass("Password: ")', "export PGPASSWORD=$PGPASSWORD", "password: ${oc.env:PGPASSWORD}", "password: <your password>",
    "if password:\n    connect()", "the token of the hub, and the key to it", "a secret is no word for a name",
    "a pass over the data: 3 of 4 pass", "first_pass = 1", "public_key: x", "sort_key = 'val/loss'", "cache_key='train-2'",
    "hydra.launcher.n_jobs=4", "sqlite:////home/me/runs/mlflow.db", "signature = inspect.signature(f)", "docker run -u 1000:1000 x",
    "basic configuration of a model", "risk-adjusted-return-of-2026-and-later", "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
    "torch-2.13.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl", "BertForSequenceClassification", "DeepseekV3ForCausalLM",
    '{name: pad_token, value: "[PAD]"}', "- name: DB_PASSWORD\n  valueFrom: x", '{"key": "metric", "value": 0.93}',
    "{name: DB_PASSWORD, value: ${PASSWORD}}", "GPU-" + str(uuid.UUID(int=7 << 90)),
    "encoder.layer.0.attention.self.dropout", "loss=0.4312 step 12/400 lr=1e-05", "2026-11-27T18:37:03.123+00:00",
    f"runs/default/{RUN_ID}/summary.json", f"key={RUN_ID}", "MyDropout-s0-0f1e2d3c4b5a", "ssh://git@github.com/x/y.git", "git@github.com:x/y.git", "me@host.org",
    "index 0a1b2c3..4d5e6f7 100644", "integrity: sha512-" + base64.b64encode(hashlib.sha512(b"x").digest()).decode(),
    "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 4).decode(),
    "\n".join(f"+{base64.b64encode(hashlib.sha512(bytes([n])).digest()).decode()[:76]}" for n in range(4)),
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_what_is_no_credential_stays(text: str) -> None:
    environment = {
        "TOKENIZERS_PARALLELISM": "tokenizer",
        "KEY": "n",
        "PWD": "runs/default",
        "DESKTOP_SESSION": "attention",
    }
    for context in contexts(text):
        assert masked(context, environment) == context
    assert not holds_credential(text)


@given(
    st.binary(min_size=1, max_size=20),
    st.sampled_from(["{}", "x: {}", "commit {}\n", "'{}'", "key={}", "a/{}/b.json"]),
)
def test_digests_and_ids_stay(content: bytes, template: str) -> None:
    digests = [hashlib.new(kind, content).hexdigest() for kind in ("sha1", "sha256", "sha512", "sha384")]
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, content.hex())), f"attention-only-s12-{digests[0][:12]}"]
    for word in [*digests, *ids, digests[0][:12]]:
        assert masked(template.format(word), {}) == template.format(word)


def test_this_project_stays_as_it_is() -> None:
    """The lines of sources, options and documents that are changed all speak of credentials."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True
    ).stdout.split()
    kept = [
        file
        for root in ("src", "conf", "launchers", "analysis", "docs")
        for file in sorted((ROOT / root).rglob("*"))
    ]
    files = [
        f for f in kept if f.suffix in (".py", ".yaml", ".md", ".json", ".j2") and "masking" not in f.parts
    ]
    assert len(files) > 250 and (not listed or len(listed) > 250)
    changed = []
    for text in (file.read_text() for file in files):
        if (said := masked(text, {})) != text:
            changed += [line for line in text.split("\n") if line not in said.split("\n")]
    assert len(changed) <= 3, changed


def test_a_large_text_takes_time_in_proportion() -> None:
    """Patterns that try again from every letter would take minutes here."""
    for text in (
        "A",
        "%41",
        "secret:",
        "secret=[",
        'password="a',
        "mysql a ",
        "://a:b",
        "password ",
        "+aB3+aB3+aB3+aB3+aB3+\n",
    ):
        masked(text * (60_000 // len(text)), {})


def test_arguments_of_a_command() -> None:
    given = [
        "train", "--token", "abc", "--api-key=abc", "hub.token=abc", "db_password=a b", "seed=1", "monkey=2", "-u", "me:abc",
        "hydra.launcher.setup=[export PGPASSWORD=abc, module load x]", "tracking.uri=http://x/?token=abc",
    ]  # fmt: skip
    assert masked_arguments(given, {}) == [
        "train", "--token", "***", "--api-key=***", "hub.token=***", "db_password=***", "seed=1", "monkey=2", "-u", "me:***",
        "hydra.launcher.setup=[export PGPASSWORD=***, module load x]", "tracking.uri=http://x/?token=***",
    ]  # fmt: skip
