"""A lab platform in one file: people log in, see their machines, and open the console of one.

Consoles pass through this very application, which knows who has logged in and what is theirs: no tokens are
needed.

    gunicorn --worker-class gthread --threads 40 --workers 2 --reuse-port 'flask_lab:create_app()'
    flask --app flask_lab run                                 # to try it

Settings, besides those of wsproxy that say where the Kubernetes API is:

LAB_SECRET  signs the session cookies: 32 random bytes or more, the same in every worker
LAB_USERS   {"ann": {"password": HASH, "namespace": "lab-1", "machines": ["ubuntu"]}}, with a HASH that
            werkzeug.security.generate_password_hash has made
LAB_NOVNC   a directory with noVNC; without it a page only says where its console is
LAB_PLAIN   "true" lets the session cookie go without TLS: to try it on one machine
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from jinja2 import DictLoader
from werkzeug.security import check_password_hash, generate_password_hash

from wsproxy import Grant
from wsproxy.flask import Console

API = ("LOCAL_DEV_MODE", "WS_REMOTE_URL")  # what says where it is, unless Kubernetes does
LOGIN_SECONDS = 8 * 3600

lab = Blueprint("lab", __name__)
console = Console()


@dataclass(frozen=True)
class User:
    """Somebody who may log in, and the machines that are theirs."""

    name: str
    password: str
    namespace: str
    machines: tuple[str, ...]


def create_app() -> Flask:
    """Make the application by the environment's settings."""
    app = Flask(__name__)
    app.config.from_mapping(
        {name: value for name, value in os.environ.items() if name in API or name.startswith("WSPROXY_")}
    )
    app.config.update(
        SECRET_KEY=os.environ["LAB_SECRET"],
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=os.environ.get("LAB_PLAIN") != "true",
        USERS={
            name: User(name, user["password"], user["namespace"], tuple(user["machines"]))
            for name, user in json.loads(os.environ["LAB_USERS"]).items()
        },
        NOBODY=User("", generate_password_hash(secrets.token_hex()), "", ()),
        NOVNC=os.environ.get("LAB_NOVNC"),
    )
    app.jinja_loader = DictLoader(PAGES)
    app.register_blueprint(lab)
    console.init_app(app)
    return app


@lab.before_request
def check_form() -> None:
    """A form has to come from a page of this session (CSRF)."""
    sent, expected = request.form.get("word", ""), session.get("word", "")
    if request.method == "POST" and not (
        expected and secrets.compare_digest(sent.encode(), expected.encode())
    ):
        abort(400, "This page is too old: load it again.")


@lab.before_request
def find_user() -> ResponseReturnValue | None:
    """Only the login page is for everybody."""
    g.user = current_app.config["USERS"].get(session.get("user"))
    if session.get("until", 0) < time.time():
        g.user = None
    if g.user or request.endpoint == "lab.login":
        return None
    if request.endpoint == "lab.open_console":
        abort(401)
    return redirect(url_for("lab.login"))


@lab.context_processor
def form_word() -> dict[str, str]:
    return {"word": session.setdefault("word", secrets.token_hex())}


@lab.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    if request.method == "GET":
        return render_template("login.html")
    # Somebody unknown takes as long as a wrong password.
    user = current_app.config["USERS"].get(request.form.get("name"), current_app.config["NOBODY"])
    if not check_password_hash(user.password, request.form.get("password", "")):
        return render_template("login.html", wrong=True), 403
    session.clear()
    session.update(user=user.name, until=time.time() + LOGIN_SECONDS)
    return redirect(url_for("lab.machines"))


@lab.post("/logout")
def logout() -> ResponseReturnValue:
    for opened in console.sessions():  # of this worker; those of others end with the grant
        if opened.user == g.user.name:
            opened.close(4499, "logged out")
    session.clear()
    return redirect(url_for("lab.login"))


@lab.get("/")
def machines() -> ResponseReturnValue:
    return render_template("machines.html")


@lab.get("/machines/<name>/")
def machine(name: str) -> ResponseReturnValue:
    if name not in g.user.machines:
        abort(404)
    return render_template("machine.html", name=name)


@lab.route("/machines/<name>/console", websocket=True)
def open_console(name: str) -> ResponseReturnValue:
    """The WebSocket that noVNC opens. Which pages may do so is the console's to judge."""
    user: User = g.user
    return console.connect(Grant(user.name, user.namespace, user.machines, session["until"], "login"), name)


@lab.get("/novnc/<path:name>")
def novnc(name: str) -> ResponseReturnValue:
    directory = current_app.config["NOVNC"] or abort(404)
    return send_from_directory(directory, name)


PAGES = {
    "page.html": """
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Lab</title>
<link rel="icon" href="data:,">
{% if g.user %}
<form action="{{ url_for('lab.logout') }}" method="post">
  <input type="hidden" name="word" value="{{ word }}">
  {{ g.user.name }} <button>Log out</button>
</form>
{% endif %}
{% block body %}{% endblock %}
</html>
""",
    "login.html": """
{% extends "page.html" %}
{% block body %}
<form method="post">
  <input type="hidden" name="word" value="{{ word }}">
  <label>Name <input name="name" autocomplete="username" autofocus></label>
  <label>Password <input name="password" type="password" autocomplete="current-password"></label>
  <button>Log in</button>
  {% if wrong %}<p>There is no such name and password.</p>{% endif %}
</form>
{% endblock %}
""",
    "machines.html": """
{% extends "page.html" %}
{% block body %}
<h1>Your machines</h1>
<ul>
  {% for name in g.user.machines %}
  <li><a href="{{ url_for('lab.machine', name=name) }}">{{ name }}</a></li>
  {% endfor %}
</ul>
{% endblock %}
""",
    "machine.html": """
{% extends "page.html" %}
{% block body %}
<h1>{{ name }}</h1>
{% if config.NOVNC %}
<p id="state">connecting</p>
<div id="screen"></div>
<script type="module">
  import RFB from "{{ url_for('lab.novnc', name='core/rfb.js') }}";
  const url = new URL("console", location.href.replace("http", "ws"));
  const rfb = new RFB(document.getElementById("screen"), url.href);
  const state = document.getElementById("state");
  rfb.addEventListener("desktopname", event => { state.textContent = `connected to ${event.detail.name}`; });
  rfb.addEventListener("disconnect", () => { state.textContent = "disconnected"; });
</script>
{% else %}
<p>The console is the WebSocket <code>{{ url_for("lab.open_console", name=name) }}</code> of this server, with
the cookie of this session. Set LAB_NOVNC to see it here.</p>
{% endif %}
{% endblock %}
""",
}
