
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A record is changed as text, member by member: a tree that is printed again
 * would lose the order, large numbers and the form of what nobody asked to
 * change.  The library also takes what is no JSON (numbers such as "01", bytes
 * behind the end), so that the grammar is checked here first.
 */


#include "aigw.h"


#define AIGW_PLAIN      0
#define AIGW_QUOTE      1
#define AIGW_BACKSLASH  2
#define AIGW_CONTROL    3
#define AIGW_HIGH       4


static u_char *aigw_json_string(u_char *p, u_char *last,
    aigw_json_error_t *e);
static u_char *aigw_json_escape(u_char *p, u_char *last,
    aigw_json_error_t *e);
static u_char *aigw_json_number(u_char *p, u_char *last,
    aigw_json_error_t *e);
static int aigw_json_hex(u_char *p, u_char *last, uint32_t *value);
static u_char *aigw_json_failed(aigw_json_error_t *e, u_char *at,
    const char *text);
static aigw_str_t aigw_json_splice(aigw_str_t *text, u_char *start,
    u_char *end, aigw_buf_t *b);


static u_char  aigw_classes[256];


u_char *
aigw_json_space(u_char *p, u_char *last)
{
    while (p < last
           && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    {
        p++;
    }

    return p;
}


static u_char *
aigw_json_failed(aigw_json_error_t *e, u_char *at, const char *text)
{
    e->at = at;
    e->text = text;

    return NULL;
}


u_char *
aigw_json_skip(u_char *p, u_char *last, aigw_json_error_t *e)
{
    size_t  depth;
    u_char  stack[AIGW_DEPTH_MAX];

    depth = 0;

value:

    p = aigw_json_space(p, last);

    if (p == last) {
        goto eof;
    }

    switch (*p) {

    case '"':
        p = aigw_json_string(p, last, e);
        break;

    case '{':
    case '[':
        if (depth == AIGW_DEPTH_MAX) {
            return aigw_json_failed(e, p, "nesting is too deep");
        }

        stack[depth++] = *p;

        p = aigw_json_space(p + 1, last);

        if (p == last) {
            goto eof;
        }

        /* "}" is two behind "{", "]" is two behind "[" */

        if (*p == stack[depth - 1] + 2) {
            depth--;
            p++;
            break;
        }

        if (stack[depth - 1] == '{') {
            goto name;
        }

        goto value;

    case 't':
        p = (last - p >= 4 && memcmp(p, "true", 4) == 0) ? p + 4
            : aigw_json_failed(e, p, "invalid value");
        break;

    case 'f':
        p = (last - p >= 5 && memcmp(p, "false", 5) == 0) ? p + 5
            : aigw_json_failed(e, p, "invalid value");
        break;

    case 'n':
        p = (last - p >= 4 && memcmp(p, "null", 4) == 0) ? p + 4
            : aigw_json_failed(e, p, "invalid value");
        break;

    default:
        p = aigw_json_number(p, last, e);
    }

    if (p == NULL) {
        return NULL;
    }

next:

    if (depth == 0) {
        return p;
    }

    p = aigw_json_space(p, last);

    if (p == last) {
        goto eof;
    }

    if (*p == ',') {
        p++;

        if (stack[depth - 1] == '{') {
            goto name;
        }

        goto value;
    }

    if (*p == stack[depth - 1] + 2) {
        p++;
        depth--;
        goto next;
    }

    return aigw_json_failed(e, p, stack[depth - 1] == '{'
                                  ? "expected \",\" or \"}\""
                                  : "expected \",\" or \"]\"");

name:

    p = aigw_json_space(p, last);

    if (p == last) {
        goto eof;
    }

    if (*p != '"') {
        return aigw_json_failed(e, p, "expected a member name");
    }

    p = aigw_json_string(p, last, e);

    if (p == NULL) {
        return NULL;
    }

    p = aigw_json_space(p, last);

    if (p == last) {
        goto eof;
    }

    if (*p != ':') {
        return aigw_json_failed(e, p, "expected \":\"");
    }

    p++;

    goto value;

eof:

    return aigw_json_failed(e, p, "unexpected end of data");
}


static u_char *
aigw_json_string(u_char *p, u_char *last, aigw_json_error_t *e)
{
    size_t   i;
    u_char  *start;

    if (aigw_classes['"'] == AIGW_PLAIN) {
        for (i = 0; i < ' '; i++) {
            aigw_classes[i] = AIGW_CONTROL;
        }

        for (i = 0x80; i < 256; i++) {
            aigw_classes[i] = AIGW_HIGH;
        }

        aigw_classes['"'] = AIGW_QUOTE;
        aigw_classes['\\'] = AIGW_BACKSLASH;
    }

    for (p++; p < last; p++) {

        switch (aigw_classes[*p]) {

        case AIGW_PLAIN:
            break;

        case AIGW_QUOTE:
            return p + 1;

        case AIGW_BACKSLASH:
            p = aigw_json_escape(p, last, e);

            if (p == NULL) {
                return NULL;
            }

            break;

        case AIGW_HIGH:
            start = p;

            while (p + 1 < last && p[1] >= 0x80) {
                p++;
            }

            if (e->strict && !aigw_utf8(start, p + 1)) {
                return aigw_json_failed(e, start, "invalid UTF-8");
            }

            break;

        default:
            return aigw_json_failed(e, p, "control character in a string");
        }
    }

    return aigw_json_failed(e, p, "unexpected end of data");
}


/* to the last character of the escape */

static u_char *
aigw_json_escape(u_char *p, u_char *last, aigw_json_error_t *e)
{
    u_char    *start;
    uint32_t   c, low;

    start = p++;

    if (p == last) {
        return aigw_json_failed(e, p, "unexpected end of data");
    }

    if (*p != 'u') {
        return (*p != '\0' && strchr("\"\\/bfnrt", *p) != NULL) ? p
               : aigw_json_failed(e, start, "invalid escape in a string");
    }

    if (!aigw_json_hex(p + 1, last, &c)) {
        return aigw_json_failed(e, start, "invalid escape in a string");
    }

    p += 4;

    if (!e->strict) {
        return p;
    }

    if (c == 0) {
        return aigw_json_failed(e, start, "null character in a string");
    }

    if (c < 0xd800 || c > 0xdfff) {
        return p;
    }

    if (c < 0xdc00 && last - p > 2 && p[1] == '\\' && p[2] == 'u'
        && aigw_json_hex(p + 3, last, &low) && low >= 0xdc00 && low <= 0xdfff)
    {
        return p + 6;
    }

    return aigw_json_failed(e, start, "lone surrogate in a string");
}


static int
aigw_json_hex(u_char *p, u_char *last, uint32_t *value)
{
    int  i, ch;

    if (last - p < 4) {
        return 0;
    }

    *value = 0;

    for (i = 0; i < 4; i++) {
        ch = p[i] | 0x20;

        if (p[i] >= '0' && p[i] <= '9') {
            *value = *value << 4 | (uint32_t) (p[i] - '0');

        } else if (ch >= 'a' && ch <= 'f') {
            *value = *value << 4 | (uint32_t) (ch - 'a' + 10);

        } else {
            return 0;
        }
    }

    return 1;
}


static u_char *
aigw_json_number(u_char *p, u_char *last, aigw_json_error_t *e)
{
    u_char  *start, *digits;

    start = p;

    if (*p == '-') {
        p++;
    }

    digits = p;

    while (p < last && *p >= '0' && *p <= '9') {
        p++;
    }

    if (p == digits) {
        return aigw_json_failed(e, start, p == start ? "invalid value"
                                                     : "invalid number");
    }

    if (*digits == '0' && p - digits > 1) {
        return aigw_json_failed(e, start, "invalid number");
    }

    if (p < last && *p == '.') {
        digits = ++p;

        while (p < last && *p >= '0' && *p <= '9') {
            p++;
        }

        if (p == digits) {
            return aigw_json_failed(e, start, "invalid number");
        }
    }

    if (p < last && (*p == 'e' || *p == 'E')) {
        p++;

        if (p < last && (*p == '+' || *p == '-')) {
            p++;
        }

        digits = p;

        while (p < last && *p >= '0' && *p <= '9') {
            p++;
        }

        if (p == digits) {
            return aigw_json_failed(e, start, "invalid number");
        }
    }

    return p;
}


int
aigw_json_is(aigw_str_t *value, const char *text)
{
    int     rc;
    size_t  len;
    cJSON  *json;

    len = strlen(text);

    if (value->len < 2 || value->data[0] != '"') {
        return 0;
    }

    if (memchr(value->data, '\\', value->len) == NULL) {
        return value->len == len + 2
               && memcmp(value->data + 1, text, len) == 0;
    }

    json = cJSON_ParseWithLength((char *) value->data, value->len);

    rc = cJSON_IsString(json) && strcmp(json->valuestring, text) == 0;

    cJSON_Delete(json);

    return rc;
}


/* AIGW_OK; AIGW_DECLINED: there is none, *member is the last one, if any */

int
aigw_json_member(aigw_str_t *object, const char *name, aigw_member_t *member)
{
    u_char             *p, *last;
    aigw_json_error_t   e;

    memset(member, 0, sizeof(aigw_member_t));

    e.strict = 0;
    last = object->data + object->len;
    p = aigw_json_space(object->data + 1, last);

    while (p < last && *p == '"') {
        member->name.data = p;
        p = aigw_json_skip(p, last, &e);
        member->name.len = p - member->name.data;

        p = aigw_json_space(p, last);
        p = aigw_json_space(p + 1, last);

        member->value.data = p;
        p = aigw_json_skip(p, last, &e);
        member->value.len = p - member->value.data;

        if (aigw_json_is(&member->name, name)) {
            return AIGW_OK;
        }

        p = aigw_json_space(p, last);
        p = aigw_json_space(p + 1, last);
    }

    return AIGW_DECLINED;
}


int
aigw_json_item(u_char **p, u_char *last, aigw_str_t *item)
{
    aigw_json_error_t  e;

    e.strict = 0;
    item->data = aigw_json_space(*p, last);

    if (item->data == last || *item->data == ']') {
        return AIGW_DONE;
    }

    *p = aigw_json_skip(item->data, last, &e);
    item->len = *p - item->data;

    *p = aigw_json_space(*p, last);

    if (*p < last && **p == ',') {
        (*p)++;
    }

    return AIGW_OK;
}


static aigw_str_t
aigw_json_splice(aigw_str_t *text, u_char *start, u_char *end, aigw_buf_t *b)
{
    aigw_str_t  out;

    out.len = text->len - (end - start) + b->len;
    out.data = aigw_alloc(out.len + 1);

    memcpy(out.data, text->data, start - text->data);

    if (b->len) {
        memcpy(out.data + (start - text->data), b->data, b->len);
    }

    memcpy(out.data + (start - text->data) + b->len, end,
           text->data + text->len - end);

    out.data[out.len] = '\0';

    free(b->data);

    return out;
}


aigw_str_t
aigw_json_set(aigw_str_t *object, const char *name, const char *value)
{
    u_char         *p, *end;
    aigw_buf_t      b;
    aigw_member_t   m;

    memset(&b, 0, sizeof(aigw_buf_t));

    if (aigw_json_member(object, name, &m) == AIGW_OK) {
        aigw_buf_text(&b, value);

        return aigw_json_splice(object, m.value.data,
                                m.value.data + m.value.len, &b);
    }

    if (m.name.data == NULL) {
        aigw_buf_text(&b, "{\"");
        aigw_buf_text(&b, name);
        aigw_buf_text(&b, "\":");
        aigw_buf_text(&b, value);
        aigw_buf_text(&b, "}");

        return aigw_json_splice(object, object->data,
                                object->data + object->len, &b);
    }

    /* white space as that of the last member */

    for (p = m.name.data; strchr(" \t\r\n", p[-1]) != NULL; p--) {
        /* void */
    }

    end = m.value.data + m.value.len;

    aigw_buf_text(&b, ",");
    aigw_buf_add(&b, p, m.name.data - p);
    aigw_buf_text(&b, "\"");
    aigw_buf_text(&b, name);
    aigw_buf_text(&b, "\"");
    aigw_buf_add(&b, m.name.data + m.name.len,
                 m.value.data - (m.name.data + m.name.len));
    aigw_buf_text(&b, value);

    return aigw_json_splice(object, end, end, &b);
}


aigw_str_t
aigw_json_remove(aigw_str_t *object, const char *name)
{
    u_char         *start, *end, *last;
    aigw_buf_t      b;
    aigw_member_t   m;

    memset(&b, 0, sizeof(aigw_buf_t));

    if (aigw_json_member(object, name, &m) != AIGW_OK) {
        return aigw_json_splice(object, object->data, object->data, &b);
    }

    start = m.name.data;
    end = m.value.data + m.value.len;
    last = object->data + object->len;

    while (strchr(" \t\r\n", start[-1]) != NULL) {
        start--;
    }

    if (start[-1] == ',') {
        start--;

    } else if (*aigw_json_space(end, last) == ',') {

        /* the first one: what follows takes its place */

        start = m.name.data;
        end = aigw_json_space(end, last) + 1;
        end = aigw_json_space(end, last);
    }

    return aigw_json_splice(object, start, end, &b);
}


void
aigw_json_minify(aigw_buf_t *b, aigw_str_t *text)
{
    u_char             *p, *last, *start;
    aigw_json_error_t   e;

    e.strict = 0;
    last = text->data + text->len;

    for (p = text->data; p < last; /* void */ ) {
        start = p;

        if (*p == '"') {
            p = aigw_json_string(p, last, &e);
            aigw_buf_add(b, start, p - start);
            continue;
        }

        p = aigw_json_space(p, last);

        if (p == start) {
            aigw_buf_add(b, p++, 1);
        }
    }
}


char *
aigw_json_text(cJSON *json)
{
    char  *text;

    text = json ? cJSON_PrintUnformatted(json) : NULL;

    if (text == NULL) {
        aigw_fail("out of memory");
    }

    return text;
}
