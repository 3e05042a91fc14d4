BEGIN TRANSACTION;
CREATE TABLE answers(
  key TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, value TEXT, raw TEXT NOT NULL,
  model TEXT, fingerprint TEXT, detail TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, time REAL NOT NULL,
  PRIMARY KEY (key, attempt));
INSERT INTO "answers" VALUES('fb3537954191ed44626bd3d533487797b713f47d5968b24d4798bf2bdc2145ce',0,'ok','"A ring moves left. [item-3]"','A ring moves left. [item-3]','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 0, "draw": 0}',200,20,1.79589415942928123468e+09);
INSERT INTO "answers" VALUES('935134c49939f95a189f43cee03f29a2022c29991f12ef4ccdd9f4f8464408a8',0,'ok','"A ring moves left. [item-3]"','A ring moves left. [item-3]','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 0, "draw": 0}',200,20,1.79589415945326304441e+09);
INSERT INTO "answers" VALUES('db747ed8ed3caf2a2578a350b5e6e6e8a55855a90f5497a9fe07526c9f4a865b',0,'ok','"A ring moves left. [item-3]"','A ring moves left. [item-3]','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 0, "draw": 0}',200,20,1.79589415945806980126e+09);
INSERT INTO "answers" VALUES('f159c484e60e27e424862745dd485dc3b6263f8ebe637da9282e7ea7a05b2cdc',0,'ok','"A ring moves left. [item-1]"','A ring moves left. [item-1]','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 1, "draw": 0}',200,20,1.79589415961615085602e+09);
INSERT INTO "answers" VALUES('e774df80505c35f75a6750c724750bb8f7e440607c29e583f97b7b802aa20723',0,'ok','"A ring moves left. [item-1]"','A ring moves left. [item-1]','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 1, "draw": 0}',200,20,1.79589415966424798963e+09);
INSERT INTO "answers" VALUES('197c7d28489c424eb02dfae1942989ae5f15b60c1ec194c644766be164c296d7',0,'ok','"A ring moves left. [item-1]"','A ring moves left. [item-1]','tiny-0613','fp_1','{"finish": "stop", "id": "q2", "candidate": 1, "draw": 0}',200,20,1.79589415968140912053e+09);
CREATE TABLE batches(
  number INTEGER PRIMARY KEY, batch TEXT NOT NULL, event TEXT NOT NULL, value TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE claims(key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE failures(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('schema','1');
INSERT INTO "meta" VALUES('protocol','sample/1');
INSERT INTO "meta" VALUES('salt','06535b33c0dbda5d0507f7710ec30dc0');
CREATE TABLE sent(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "sent" VALUES(1,'fb3537954191ed44626bd3d533487797b713f47d5968b24d4798bf2bdc2145ce',0,'0cf11bda045c45e792fe1fb2f5621490',1.79589415933224701878e+09);
INSERT INTO "sent" VALUES(2,'935134c49939f95a189f43cee03f29a2022c29991f12ef4ccdd9f4f8464408a8',0,'0cf11bda045c45e792fe1fb2f5621490',1.79589415943612909316e+09);
INSERT INTO "sent" VALUES(3,'db747ed8ed3caf2a2578a350b5e6e6e8a55855a90f5497a9fe07526c9f4a865b',0,'0cf11bda045c45e792fe1fb2f5621490',1.79589415945332980155e+09);
INSERT INTO "sent" VALUES(4,'f159c484e60e27e424862745dd485dc3b6263f8ebe637da9282e7ea7a05b2cdc',0,'ddea1a7299b449baa167a1f1408281d9',1.79589415954461169245e+09);
INSERT INTO "sent" VALUES(5,'e774df80505c35f75a6750c724750bb8f7e440607c29e583f97b7b802aa20723',0,'ddea1a7299b449baa167a1f1408281d9',1.79589415961632227892e+09);
INSERT INTO "sent" VALUES(6,'197c7d28489c424eb02dfae1942989ae5f15b60c1ec194c644766be164c296d7',0,'ddea1a7299b449baa167a1f1408281d9',1.79589415966855263711e+09);
CREATE TABLE totals(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO "totals" VALUES('sent',6);
INSERT INTO "totals" VALUES('answers',6);
INSERT INTO "totals" VALUES('prompt_tokens',1200);
INSERT INTO "totals" VALUES('completion_tokens',120);
CREATE INDEX failures_key ON failures(key);
CREATE INDEX claims_owner ON claims(owner);
CREATE TRIGGER answers_UPDATE BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
CREATE TRIGGER answers_DELETE BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;
CREATE TRIGGER sent_UPDATE BEFORE UPDATE ON sent BEGIN SELECT RAISE(ABORT, 'sent is append-only'); END;
CREATE TRIGGER sent_DELETE BEFORE DELETE ON sent BEGIN SELECT RAISE(ABORT, 'sent is append-only'); END;
CREATE TRIGGER failures_UPDATE BEFORE UPDATE ON failures BEGIN SELECT RAISE(ABORT, 'failures is append-only'); END;
CREATE TRIGGER failures_DELETE BEFORE DELETE ON failures BEGIN SELECT RAISE(ABORT, 'failures is append-only'); END;
CREATE TRIGGER batches_UPDATE BEFORE UPDATE ON batches BEGIN SELECT RAISE(ABORT, 'batches is append-only'); END;
CREATE TRIGGER batches_DELETE BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'batches is append-only'); END;
COMMIT;
