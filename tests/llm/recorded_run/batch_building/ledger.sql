BEGIN TRANSACTION;
CREATE TABLE answers(
  key TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, value TEXT, raw TEXT NOT NULL,
  model TEXT, fingerprint TEXT, detail TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, time REAL NOT NULL,
  PRIMARY KEY (key, attempt));
INSERT INTO "answers" VALUES('423c8d25ca75d8fb26c653bf1624bdfbe3ee55c4ef386f2c6a89253c865ca94e',0,'ok','1','{"reason": "seen", "score": 1}','tiny-0613','fp_1','{"finish": "stop", "id": "q0", "candidate": 0, "draw": 0}',200,20,1795894158.17611);
INSERT INTO "answers" VALUES('8a90f2b609081eaf2e6fd34f85016f6a865cb41be9c56e2883c3c3e70385cebd',0,'unparsed',NULL,'I would say the score is 4 out of 5, because it is good.','tiny-0613','fp_1','{"finish": "stop", "id": "q1", "candidate": 0, "draw": 0, "why": "it ends neither with a line `SCORE: N` nor with a JSON object that has a score"}',200,20,1.79589415827402162548e+09);
CREATE TABLE batches(
  number INTEGER PRIMARY KEY, batch TEXT NOT NULL, event TEXT NOT NULL, value TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "batches" VALUES(1,'616cef7b430a4d8f9b73ea43d42ec62b','building','{"rows": [["8a90f2b609081eaf2e6fd34f85016f6a865cb41be9c56e2883c3c3e70385cebd", 1, "q1", 0, 0], ["91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1", 0, "q2", 0, 0], ["cd3200c175451617aa20895f42308412f06af3fe72d46712e7753bc81c32ba3c", 0, "q3", 0, 0], ["7de8e7325f32bddbf6da1f9e965885045f084e02d9b1dd27b3359a4c8801d281", 0, "q4", 0, 0]], "cost": 0.0}',1.79589415850429344172e+09);
CREATE TABLE claims(key TEXT PRIMARY KEY, owner TEXT NOT NULL);
INSERT INTO "claims" VALUES('8a90f2b609081eaf2e6fd34f85016f6a865cb41be9c56e2883c3c3e70385cebd','batch:616cef7b430a4d8f9b73ea43d42ec62b');
INSERT INTO "claims" VALUES('91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1','batch:616cef7b430a4d8f9b73ea43d42ec62b');
INSERT INTO "claims" VALUES('cd3200c175451617aa20895f42308412f06af3fe72d46712e7753bc81c32ba3c','batch:616cef7b430a4d8f9b73ea43d42ec62b');
INSERT INTO "claims" VALUES('7de8e7325f32bddbf6da1f9e965885045f084e02d9b1dd27b3359a4c8801d281','batch:616cef7b430a4d8f9b73ea43d42ec62b');
CREATE TABLE failures(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "failures" VALUES(1,'91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1','server','500: broken',1.79589415845947051046e+09);
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "meta" VALUES('schema','1');
INSERT INTO "meta" VALUES('protocol','caption/1/50bd25f0ff59');
INSERT INTO "meta" VALUES('salt','7c136d930da878035432dc893282b3a7');
CREATE TABLE sent(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL, time REAL NOT NULL);
INSERT INTO "sent" VALUES(1,'423c8d25ca75d8fb26c653bf1624bdfbe3ee55c4ef386f2c6a89253c865ca94e',0,'709d0d2795834b38be33c0767e18d583',1.7958941569669806957e+09);
INSERT INTO "sent" VALUES(2,'8a90f2b609081eaf2e6fd34f85016f6a865cb41be9c56e2883c3c3e70385cebd',0,'709d0d2795834b38be33c0767e18d583',1.79589415819619393349e+09);
INSERT INTO "sent" VALUES(3,'91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1',0,'709d0d2795834b38be33c0767e18d583',1.79589415828689265251e+09);
INSERT INTO "sent" VALUES(4,'91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1',0,'709d0d2795834b38be33c0767e18d583',1795894158.37321);
INSERT INTO "sent" VALUES(5,'91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1',0,'709d0d2795834b38be33c0767e18d583',1.79589415840709924702e+09);
INSERT INTO "sent" VALUES(6,'91df1a0248c0495c1868e738bdbd63ab3e18a23c9de1f9cc60bedcfbeef708b1',0,'709d0d2795834b38be33c0767e18d583',1.79589415844860959053e+09);
CREATE TABLE totals(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO "totals" VALUES('sent',6);
INSERT INTO "totals" VALUES('answers',2);
INSERT INTO "totals" VALUES('prompt_tokens',400);
INSERT INTO "totals" VALUES('completion_tokens',40);
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
