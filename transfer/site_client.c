// SPDX-License-Identifier: Apache-2.0
/*
 * The client side of HTTPS: libcurl with the peer's identity checked inside
 * the TLS handshake, before the first byte of a request leaves.
 */
#include <curl/curl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "transfer/transfer_priv.h"

static int ctx_index = -1;

static bool has_uri(X509 *cert, const char *want)
{
	GENERAL_NAMES *names =
	    X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; !found && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *u;

		if (g->type != GEN_URI)
			continue;
		u = g->d.uniformResourceIdentifier;
		found = (size_t)ASN1_STRING_length(u) == strlen(want) &&
			!memcmp(ASN1_STRING_get0_data(u), want, strlen(want));
	}
	GENERAL_NAMES_free(names);
	return found;
}

static int on_verify(int ok, X509_STORE_CTX *x)
{
	SSL *ssl =
	    X509_STORE_CTX_get_ex_data(x, SSL_get_ex_data_X509_STORE_CTX_idx());
	const char *want = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ctx_index);

	if (!ok || X509_STORE_CTX_get_error_depth(x) > 0)
		return ok;
	if (has_uri(X509_STORE_CTX_get_current_cert(x), want))
		return 1;
	X509_STORE_CTX_set_error(x, X509_V_ERR_HOSTNAME_MISMATCH);
	return 0;
}

static CURLcode on_ctx(CURL *curl, void *ctx, void *arg)
{
	(void)curl;
	SSL_CTX_set_ex_data(ctx, ctx_index, arg);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, on_verify);
	return CURLE_OK;
}

CURL *client_new(const struct conf *c, char *want)
{
	CURL *h = curl_easy_init();

	if (!h)
		return NULL;
	curl_easy_setopt(h, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(h, CURLOPT_SSLCERT, c->certificate);
	curl_easy_setopt(h, CURLOPT_SSLKEY, c->key);
	curl_easy_setopt(h, CURLOPT_CAINFO, c->ca);
	curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
	/* The identity is the SAN URI (on_verify), not the host's name. */
	curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(h, CURLOPT_SSL_CTX_FUNCTION, on_ctx);
	curl_easy_setopt(h, CURLOPT_SSL_CTX_DATA, want);
	curl_easy_setopt(h, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h, CURLOPT_TCP_KEEPIDLE, 30L);
	curl_easy_setopt(h, CURLOPT_TCP_KEEPINTVL, 10L);
	curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h, CURLOPT_CERTINFO, 1L);
	curl_easy_setopt(h, CURLOPT_UPLOAD_BUFFERSIZE, 512L << 10);
	curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
	curl_easy_setopt(h, CURLOPT_PROXY, "");
	curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, 5000L);
	curl_easy_setopt(h, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	return h;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	return sb_add(arg, data, size * n) ? 0 : size * n;
}

CURLcode client_perform(CURL *h, const char *url, struct strbuf *answer,
			struct curl_slist *headers, long timeout_ms,
			long *ret_code)
{
	CURLcode c;

	curl_easy_setopt(h, CURLOPT_URL, url);
	curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(h, CURLOPT_WRITEDATA, answer);
	curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, timeout_ms);
	c = curl_easy_perform(h);
	*ret_code = 0;
	if (c == CURLE_OK)
		curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, ret_code);
	return c;
}

char *client_certificate(CURL *h)
{
	struct curl_certinfo *ci = NULL;
	struct strbuf sb = STRBUF_INIT(64u << 10);

	if (curl_easy_getinfo(h, CURLINFO_CERTINFO, &ci) || !ci)
		return NULL;
	for (int i = 0; i < ci->num_of_certs && i < 8; i++)
		for (const struct curl_slist *l = ci->certinfo[i]; l;
		     l = l->next)
			if (!strncmp(l->data, "Cert:", 5))
				sb_addf(&sb, "%s\n", l->data + 5);
	if (!sb.len || sb.error) {
		sb_free(&sb);
		return NULL;
	}
	return sb_detach(&sb);
}

int client_init(struct err *e)
{
	ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	if (ctx_index < 0 || curl_global_init(CURL_GLOBAL_DEFAULT))
		return err_set(e, EIO, "libcurl does not start");
	return 0;
}
