"""An identity provider on loopback: OpenID Connect's code flow with PKCE, and switches to make it lie."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from flask import Flask, abort, jsonify, redirect, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

CLIENT_ID, CLIENT_SECRET = "ich-triage", "the provider's secret for us"
KEY, FOREIGN_KEY = RSAKey.generate_key(2048), RSAKey.generate_key(2048)


@dataclass
class Provider:
    """What the provider knows of the one person who signs in, and what it was asked."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)  # of the person
    lies: dict[str, Any] = field(default_factory=dict)  # claims of the ID token that are put wrong
    key: RSAKey = field(default_factory=lambda: KEY)  # that signs
    only_userinfo: frozenset[str] = frozenset()  # claims that are not in the ID token
    userinfo_subject: str | None = None
    asked: list[dict[str, str]] = field(default_factory=list)  # authorization requests
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def authorize(self):
        asked = request.args.to_dict()
        self.asked.append(asked)
        if asked["client_id"] != CLIENT_ID or asked["response_type"] != "code":
            abort(400)
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return redirect(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    def token(self):
        """Exchange a code once: client secret, address and code verifier must fit (RFC 6749 4.1.3, RFC 7636 4.6)."""
        form, asked = request.form, self.codes.pop(request.form["code"])
        known = request.authorization
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if known is None or (known.username, known.password) != (CLIENT_ID, CLIENT_SECRET):
            return jsonify(error="invalid_client"), 401
        if form["redirect_uri"] != asked["redirect_uri"] or challenge.decode() != asked["code_challenge"]:
            return jsonify(error="invalid_grant"), 400
        return jsonify(access_token="at", token_type="Bearer", expires_in=60, id_token=self.id_token(asked["nonce"]))

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        own = {name: value for name, value in self.claims.items() if name not in self.only_userinfo}
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": nonce, **own, **self.lies}
        header = {"alg": "RS256", "kid": KEY.thumbprint()}
        return jwt.encode(header, {name: value for name, value in claims.items() if value is not None}, self.key)

    def userinfo(self):
        return jsonify({**self.claims, "sub": self.userinfo_subject or self.claims["sub"]})

    def discovery(self):
        return jsonify(
            issuer=self.issuer,
            authorization_endpoint=f"{self.issuer}/authorize",
            token_endpoint=f"{self.issuer}/token",
            userinfo_endpoint=f"{self.issuer}/userinfo",
            jwks_uri=f"{self.issuer}/keys",
            id_token_signing_alg_values_supported=["RS256"],
            code_challenge_methods_supported=["S256"],
        )


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Serve a provider on a free port of loopback."""
    provider, app = Provider(), Flask("provider")
    app.add_url_rule("/.well-known/openid-configuration", view_func=provider.discovery)
    app.add_url_rule("/authorize", view_func=provider.authorize)
    app.add_url_rule("/token", view_func=provider.token, methods=["POST"])
    app.add_url_rule("/userinfo", view_func=provider.userinfo)
    app.add_url_rule("/keys", "keys", lambda: jsonify(keys=[{**KEY.as_dict(private=False), "kid": KEY.thumbprint()}]))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
